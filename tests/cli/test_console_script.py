"""The command `suite` uses its own code in whatever folder it is called."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import ROOT
from fakes.forking import completed
from fakes.sweeps import small
from fakes.waiting import limit
from packaging.requirements import Requirement

SWEEP = """
from beside import BITS
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep():
    sgd = Sgd(epochs=1, batch=256, lr=0.05, pad=1, flip=False, precision=Precision("O0"))
    return [Recipe(Training(Network("resnet20"), Dataset("digits", size=8), sgd), Amax(BITS, BITS))]
"""
HOSTILE = "raise SystemExit('somebody else\\'s file was imported')\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A working folder whose files are called like packages of the project."""
    for name in ("analysis", "rich", "torch"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    for name in ("suite", "slurm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HOSTILE)
    (tmp_path / "own.py").write_text(SWEEP)
    (tmp_path / "beside.py").write_text("BITS = 8\n")
    return tmp_path


def suite(place: Path, *words: str, status: int = 0) -> str:
    """What the console script prints: the function that pyproject names, called as an installed script calls it."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["suite"]
    module, _, function = script.partition(":")
    code = f"import sys; from {module} import {function}; sys.argv[0] = 'suite'; sys.exit({function}())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SUITE_RUNS": "runs"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_sweep_is_launched_and_reported_from_a_folder_with_an_analysis_and_a_slurm_of_its_own(
    place: Path, database: bytes
) -> None:
    (place / "runs").mkdir()
    (place / "runs" / "mlflow.db").write_bytes(database)
    assert "2 stages: 2 done" in suite(place, "launch", "own.py")
    assert "amax" in suite(place, "report", "own")
    assert (place / "results" / "own" / "report.html").is_file()


def forked(place: Path, *words: str, status: int = 0) -> str:
    """The same of a process that has done its imports."""
    done = completed(words, place, {**os.environ, "SUITE_RUNS": "runs"}, limit(240))
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_commands_of_the_analysis_are_those_of_suite(place: Path) -> None:
    small(place / "runs")
    assert "published numbers" in forked(place, "verdicts").lower()
    assert (place / "results" / "verdicts" / "verdicts.md").is_file()
    forked(place, "export", "small", "--csv", "small.csv")
    assert (place / "small.csv").is_file()
    assert "A and B are both 'small'" in forked(place, "diff", "small", status=2)
    assert "holds no sweep 'diff'" in forked(place, "report", "diff", status=2)
    shown = forked(place, "--help")
    assert all(f" {name} " in shown for name in ("report", "verdicts", "diff", "export", "launch"))
    assert "Usage: suite report" in forked(place, "report", "--help")


def test_the_command_line_of_the_analysis_alone_is_as_before(place: Path) -> None:
    small(place / "runs")
    command = [
        sys.executable,
        "-m",
        "analysis",
        "small",
        "--runs",
        str(place / "runs"),
        "--out",
        str(place / "out"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    assert (place / "out" / "small" / "table.md").is_file()


def test_an_installation_brings_every_package_that_requirements_txt_pins_and_accepts_the_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    accepted = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    assert accepted.keys() == {pin.name for pin in pins}
    for pin in pins:
        assert accepted[pin.name].contains(str(pin.specifier).removeprefix("==")), pin
