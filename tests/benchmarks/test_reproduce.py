"""`make reproduce` makes every folder of results/, and says how long that takes before it starts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fakes import ROOT

from benchmarks import reproduce
from suite import sweeps
from suite.cli.main import command_line


def test_every_committed_folder_is_made_by_a_step(tmp_path: Path) -> None:
    committed = {file.name for file in (ROOT / "results").iterdir() if file.is_dir() and file.name != "quick"}
    assert {step.name for step in reproduce.steps(tmp_path / "weights", tmp_path)} == committed


def test_every_command_is_one_that_the_suite_understands(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"x")
    for step in reproduce.steps(weights, tmp_path):
        for module, *words in step.commands:
            if module == "suite":
                _, bound, _ = command_line().parse_args(words, exit_on_error=False, print_error=False)
                if words[0] == "launch":
                    name, *options = bound.args
                    assert sweeps.find(name).options.parse(options)
            elif module == "pytest":
                assert (ROOT / words[-1]).is_file()
            else:
                file = ROOT / module.replace(".", "/")
                assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file()


def test_the_hours_are_shown_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"x")
    assert reproduce.main(["--weights", str(weights), "--dry-run", "--only", "cifar10", "verdicts"]) == 0
    first, _, total, *commands = capsys.readouterr().out.splitlines()
    runs = pd.read_csv(ROOT / "results" / "cifar10" / "runs.csv")
    hours = f"{runs['run_seconds'].sum() / 3600:.1f}"
    assert first.split() == ["cifar10", hours, "h"] and total.startswith("all")
    assert commands[1].startswith("$ python -m suite launch cifar10 --weights")
    with pytest.raises(SystemExit):
        reproduce.main(["--weights", str(weights), "--only", "nothing"])
    assert "there is explain-000" in capsys.readouterr().err
