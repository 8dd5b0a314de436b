"""No terminal obeys what was recorded: neither its own commands nor the markup of rich."""

from __future__ import annotations

import fcntl
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import journals
from fakes.journals import write_run
from rich.console import Console

from suite.cli.live import Watch
from suite.cli.main import main
from suite.recipe import Training
from suite.record.files import write_json
from suite.record.journal import Journal
from suite.sweeps.stored import save_sweep

STAGES = journals.stages(2)
COMMAND = "\x1b]0;pwned\x07[/b] \x9b31m"


def is_text(printed: str) -> bool:
    return not {"\x1b", "\x07", "\x9b", "\r"} & set(printed)


def test_the_pages_that_a_sync_noted_are_shown_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sweep(tmp_path, "demo", {}, STAGES)
    note = json.dumps({"pages": {f"runs{COMMAND}": f"http://x{COMMAND}"}})
    (tmp_path / "sweeps" / "demo.mlflow").write_text(note)
    assert main(["status", "demo", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert is_text(said) and "http://x?]0;pwned?[/b] ?31m" in said


def test_a_log_is_printed_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_sweep(tmp_path, "demo", {}, STAGES)
    (tmp_path / STAGES[0].key).mkdir()
    (tmp_path / STAGES[0].key / "job.log").write_bytes(f"hidden\rloss\t1\r\n{COMMAND}\n".encode() + b"\xff\n")
    assert main(["logs", STAGES[0].key, "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "hidden\nloss\t1\n?]0;pwned?[/b] ?31m\n�\n"


def test_a_stage_whose_name_holds_markup_is_watched_and_fails_in_a_line(tmp_path: Path) -> None:
    training = STAGES[0]
    assert isinstance(training, Training)
    stage = replace(training, network=replace(training.network, name=f"torchvision/net{COMMAND}"))
    printed = io.StringIO()
    watch = Watch(Console(file=printed, force_terminal=True, width=200), [stage], tmp_path)
    (tmp_path / stage.key).mkdir()
    journal = Journal(tmp_path / stage.key)
    journal.write("started")
    with (tmp_path / stage.key / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        watch.follow(iter([None]))
    journal.write("failed", error=f"no {COMMAND}", cause=COMMAND, traceback="")
    watch._print(watch._check_open())
    assert "]0;pwned" in printed.getvalue()
    assert not {"\x07", "\x9b"} & set(printed.getvalue()) and "\x1b]" not in printed.getvalue()


@pytest.mark.parametrize("outcome", [{"top1": "high"}, {"top1": [1]}, {}, {"top1": 1e999, "start_top1": "x"}])
def test_an_outcome_that_is_none_is_shown_without_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], outcome: dict[str, object]
) -> None:
    save_sweep(tmp_path, "demo", {}, STAGES)
    write_run(tmp_path, STAGES[0])
    write_json({"format": 1, "key": STAGES[0].key, **outcome}, tmp_path / STAGES[0].key / "outcome.json")
    assert main(["status", "demo", "--runs", str(tmp_path)]) == 0
    assert "2 stages: 1 done, 1 pending" in capsys.readouterr().out
