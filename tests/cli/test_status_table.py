"""The table of `status`: a line a stage where there is room, two on a narrow terminal, and `--watch` in its height."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from suite.cli import live
from suite.cli.launching import print_next
from suite.cli.tables import fitted, shown
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training, plan
from suite.record.status import Status

SGD = Sgd(epochs=3, batch=128, lr=0.05, precision=Precision("O0"))
STAGES = plan(
    [Recipe(Training(Network(), Dataset("digits"), SGD, seed=seed), Amax(8, 8)) for seed in range(30)]
)
FAILED = {"error": "CUDA out of memory: " + "tried to allocate " * 8, "cause": "memory"}


def statuses() -> list[Status]:
    """Of 60 stages one at work, two failed, most of them done."""
    found = [Status(s, "done", outcome={"top1": 90.0}, alive_at=float(n)) for n, s in enumerate(STAGES)]
    found[7] = Status(STAGES[7], "running", events=[], last={"seq": 1}, alive_at=1.0)
    for place in (40, 50):
        found[place] = Status(STAGES[place], "failed", failure=FAILED, events=[], last={"seq": 1})
    found[55] = Status(STAGES[55], "pending", events=[])
    return found


def lines(what: RenderableType, width: int, height: int = 25) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    with console.capture() as capture:
        console.print(what)
    return capture.get().splitlines()


def test_a_narrow_terminal_has_two_lines_a_stage_and_a_third_for_an_error() -> None:
    found = lines(shown(statuses(), ""), 80)
    errors = [line for line in found if "allocate" in line]
    assert len(found) == 1 + 2 * 60 + len(errors) + 1 and all(len(line) <= 80 for line in found)
    assert found[1].startswith(STAGES[0].key) and found[2] == f"  {STAGES[0].name}"
    assert sum("memory: CUDA out of memory" in line for line in found) == 2


def test_a_wide_terminal_has_one_line_a_stage() -> None:
    found = lines(shown(statuses()[:40], ""), 200)
    assert len(found) == 1 + 40 + 1 and STAGES[7].name in found[8] and "running" in found[8]


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("height", [12, 24, 60])
@pytest.mark.parametrize(
    "note", ["a note", "a note that is longer than a line of a narrow terminal " * 3 + "end"]
)
def test_watch_fits_the_height_and_shows_what_runs_and_what_failed_first(
    width: int, height: int, note: str
) -> None:
    found = lines(fitted(statuses(), note, width, height), width, height)
    assert len(found) < height
    listed = [line for line in found if "running" in line or "failed" in line]
    assert listed[0].startswith(STAGES[7].key) and listed[1].startswith(STAGES[40].key)
    assert any(line.startswith("not shown: ") for line in found) and found[-1].endswith(note[-3:])


def test_mlflow_is_a_column_only_where_it_lacks_something() -> None:
    done = [Status(stage, "done", outcome={"top1": 90.0}, mlflow="up to date") for stage in STAGES[:3]]
    assert sum("up to date" in line for line in lines(shown(done, ""), 200)) == 1
    done[0] = Status(STAGES[0], "done", outcome={"top1": 90.0}, mlflow="3 events behind")
    assert sum("up to date" in line for line in lines(shown(done, ""), 200)) == 2


def test_a_launch_ends_with_the_next_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    print_next("own", failed=True)
    said = capsys.readouterr().out
    wanted = (
        "suite logs own --errors",
        "suite resume own",
        "suite report own",
        "suite sync own",
        "suite status own",
    )
    assert [command for command in wanted if command in said] == list(wanted)


@pytest.mark.parametrize(("between", "said"), [(1000.0, "first\n"), (0.0, "first\nsecond\n[third]\n")])
def test_what_is_being_done_is_said_in_a_log_too_at_most_a_line_in_some_seconds(
    between: float, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`suite sensitivity` printed nothing into a pipe for ten minutes."""
    monkeypatch.setattr(live, "PLAIN_SECONDS", between)
    with live.doing(Console()) as say:
        for words in ("first", "second", "[third]"):
            say(words)
    assert capsys.readouterr().err == said
