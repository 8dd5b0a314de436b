"""`suite sweeps`, and help that is written for users."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.sweeps import small

from analysis.read import published
from suite import sweeps
from suite.cli.main import COMMANDS, main
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Recipe, Sgd, Training, plan
from suite.sweeps.stored import save_sweep


def test_sweeps_lists_what_can_be_launched_and_what_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweeps", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in sweeps.names()) and "none yet" in said
    training = Training(Network(), Dataset("digits"), Sgd(epochs=1, batch=8, lr=0.1))
    save_sweep(tmp_path, "mine", {}, plan([Recipe(training, Amax(8, 8))]), "What does it cost?\nMore.")
    assert main(["sweeps", "--runs", str(tmp_path)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("mine"))
    assert line.split()[:3] == ["mine", "2", "0"] and line.endswith("What does it cost?")


def test_a_record_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path)  # as the analysis reads it: without what a launch needs
    (tmp_path / "sweeps" / "broken.json").write_text("{")
    assert main(["sweeps", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "broken" in said and "small" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_begins_with_what_it_does(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert " ".join(COMMANDS[name][1].split()[:5]) in said and f"suite {name}" in said
    assert len(COMMANDS[name][1].partition("\n\n")[0]) <= 100, "a line in the list of commands"
    assert "default: None" not in said and "default: (" not in said and 'default: ""' not in said


def test_the_help_of_explain_shows_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(option in said for option in ("--weights", "--model", "--scratch-epochs"))
    assert "--source" not in said, "explain takes the source as its argument"
    words = " ".join(said.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", "").split())
    for number, about in published.load().sources.items():
        assert f"{number} {about.partition(':')[0]}" in words, "by its number alone nobody knows a source"


def test_methods_and_explain_name_the_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert "source 002, Handwritten-Quantization: a README by TimS-ml, https://github.com/TimS-ml" in said
    assert main(["explain", "003", "--weights", str(tmp_path / "gone.pt"), "--runs", str(tmp_path)]) == 2
    assert "source 003, Post-Training Quantization: a course notebook" in capsys.readouterr().out


@pytest.mark.parametrize(("columns", "widest"), [("90", 90), ("", 160), ("0", 160), ("wide", 160)])
def test_in_a_pipe_lines_are_as_long_as_columns_says_else_160(
    columns: str, widest: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) == widest
