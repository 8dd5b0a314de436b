"""`suite report --methods --order --width --png --pdf`, and settings of the user's that must not reach the report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import ROOT
from fakes.runs_folder import finish, plan, stage
from PIL import Image

from analysis.__main__ import main
from analysis.compare import selection
from analysis.report import results, to_judge


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three methods at one width: the worst first by source, the best last."""
    start = stage("float", 32, 0)
    recipes = [stage(method, 8, 0, start) for method in ("histogram", "percentile", "amax")]
    plan(tmp_path, start, *recipes)
    for one, top1 in zip((start, *recipes), (91.0, 80.0, 85.0, 90.0), strict=True):
        finish(tmp_path, one, top1)
    return tmp_path


def labels(runs: Path, *methods: str, order: selection.Order = "source") -> list[str]:
    return list(results.load(runs, "small", methods=methods, order=order).summary["label"])


def test_methods_are_chosen_and_ordered(runs: Path) -> None:
    assert labels(runs) == ["float", "histogram", "percentile", "amax"]
    assert labels(runs, order="drop") == ["float", "amax", "percentile", "histogram"]
    assert labels(runs, "percentile", "histogram") == ["float", "histogram", "percentile"]
    assert labels(runs, "percentile", "histogram", order="given") == ["float", "percentile", "histogram"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "lsq"], "no run is of lsq; this sweep has float, histogram, percentile, amax"),
        (["--order", "given"], "--order given is that of --methods"),
        (["--width", "0.2"], "--width 0.2 is no width; give 2.5 to 20 inches"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    runs: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["small", "--runs", str(runs), "--out", str(runs / "out"), *words]) == 2
    assert message in capsys.readouterr().err


def test_the_report_is_made_whatever_the_users_matplotlib_and_terminal_are(runs: Path) -> None:
    """With a backend that is not there, formulas by LaTeX, and a terminal of ASCII."""
    (runs / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    hostile = {"MPLBACKEND": "module://nothing.there", "PYTHONIOENCODING": "ascii"}
    hostile |= {"MATPLOTLIBRC": str(runs / "matplotlibrc"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "analysis", "small", "--runs", str(runs), "--out", str(runs / "out")]
    command += ["--methods", "amax", "--width", "3.5", "--png", "--pdf"]
    done = subprocess.run(command, env=os.environ | hostile, cwd=runs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "+/-" in done.stdout
    folder = runs / "out" / "small"
    assert {"accuracy.pdf", "drop.pdf", "size.pdf"} <= {file.name for file in folder.iterdir()}
    with Image.open(folder / "drop.png") as picture:
        assert picture.width == 3.5 * 150


def test_what_is_not_judged_names_the_command_that_would_judge_it(runs: Path) -> None:
    found = to_judge.remedies(results.load(runs, "small").comparison)
    every = "\n".join(found)
    assert "8bit hist (002)" in every and "suite explain 002 --weights CHECKPOINT" in every
    (nothing,) = (line for line in found if "nothing can" in line)
    assert "original model (001)" in nothing
