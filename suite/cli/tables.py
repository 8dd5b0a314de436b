"""The tables of `plan` and `status`."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from suite.cli.rows import Rows, printable
from suite.recipe import Stage
from suite.recipe.words import counted
from suite.record.status import State, Status
from suite.record.synced import UP_TO_DATE

COLOURS: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "queued": "blue",
    "pending": "bright_black",
}


def span(seconds: float) -> str:
    """A time for people: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plan_table(statuses: Sequence[Status]) -> Rows:
    """Each stage: key, what it is, what it needs, done or pending."""
    table = Rows(("key", "stage", "needs", "state"), wrapped=("stage",))
    for now in statuses:
        needs = " ".join(needed.key for needed in now.stage.needs)
        state = (now.state, COLOURS[now.state])
        table.rows.append(((now.stage.key, "cyan"), (now.stage.name, ""), (needs, "bright_black"), state))
    return table


def plan_summary(stages: Sequence[Stage], listed: int, statuses: Sequence[Status]) -> str:
    """How many stages there are, how many are done, and how much sharing saves."""
    wanted = Counter(needed.key for stage in stages for needed in stage.needs)
    shared = sum(count > 1 for count in wanted.values())
    saved = sum(count - 1 for count in wanted.values())
    done = sum(now.state == "done" for now in statuses)
    return (
        f"{counted(len(stages), 'stage')} for {counted(listed, 'recipe')}: {done} done, {len(stages) - done} to run; "
        f"{shared} shared, which saves {counted(saved, 'training or loading', 'trainings or loadings')}"
    )


@dataclass(frozen=True)
class StatusTable:
    """Each stage: state, epochs, top-1 (grey until it is done), time since its last event, its error; its job and how
    far MLflow is, where that tells something. Where a table is too wide for the terminal, two lines a stage, and
    more for an error, of which `brief` has one."""

    statuses: Sequence[Status]
    brief: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.is_wide(options.max_width):
            yield self._table.cut_to(options.max_width) if self.brief else self._table
        else:
            yield from self._in_two_lines(options.max_width)

    def is_wide(self, width: int) -> bool:
        """Whether a terminal of this width has room for a line a stage."""
        return self._table.fits(width)

    def _columns(self) -> tuple[bool, bool]:
        """Whether there are jobs, and runs of which MLflow lacks something."""
        behind = any(now.mlflow not in ("", UP_TO_DATE) for now in self.statuses)
        return any(now.job for now in self.statuses), behind

    @cached_property
    def _table(self) -> Rows:
        with_jobs, with_mlflow = self._columns()
        titles = ["key", "stage", "state", "epoch", "top-1 %", "last event"]
        titles += ["job"] * with_jobs + ["MLflow"] * with_mlflow + ["error"]
        table = Rows(titles, ("epoch", "top-1 %", "last event"), ("stage", "job", "MLflow", "error"))
        for now in self.statuses:
            row = [(now.stage.key, "cyan"), (now.stage.name, ""), *_numbers(now)]
            row += [(now.job, "bright_black")] * with_jobs + [(now.mlflow, "bright_black")] * with_mlflow
            table.rows.append([*row, (error_of(now), "red")])
        return table

    def _in_two_lines(self, width: int) -> Iterator[Text]:
        with_jobs, with_mlflow = self._columns()
        yield Text(f"{'key':16}  {'state':8}{'epoch':>9}{'top-1 %':>9}  last event", "bold")
        for now in self.statuses:
            (state, colour), (epochs, _), (top1, tone), (age, _) = _numbers(now)
            line = Text.assemble((f"{now.stage.key:16}  ", "cyan"), (f"{state:8}", colour), f"{epochs:>9}")
            line.append(f"{top1:>9}", tone).append(f"  {age}")
            more = [now.job] * with_jobs + [f"MLflow {now.mlflow}"] * (with_mlflow and bool(now.mlflow))
            line.append("".join(f"  {words}" for words in more if words), "bright_black")
            yield _cut(line, width) if self.brief else line
            for text, style in ((now.stage.name, ""), (error_of(now), "red")):
                parts = textwrap.wrap(printable(text), width, initial_indent="  ", subsequent_indent="  ")
                for part in parts[:1] if self.brief else parts:
                    more_to_come = self.brief and len(parts) > 1
                    yield _cut(Text(part + " …" * more_to_come, style), width)


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


def _numbers(now: Status) -> list[tuple[str, str]]:
    """State, epochs, top-1 and time since the last event, each with its style."""
    top1, age = now.top1, now.age_seconds
    return [
        (now.state, COLOURS[now.state]),
        (now.epochs, ""),
        ("" if top1 is None else f"{top1:.2f}", "" if now.outcome else "bright_black"),
        ("" if age is None else f"{span(age)} ago", ""),
    ]


def error_of(now: Status) -> str:
    """The error of a stage with its cause, where that says more; nothing where there is none."""
    return now.error if now.cause in ("", "code", "diverged") else f"{now.cause}: {now.error}"


NEWS: tuple[State, ...] = ("running", "failed", "stopped", "queued", "done", "pending")
"""The states in the order of what one wants to see first."""


def fitted(statuses: Sequence[Status], note: str, width: int, height: int) -> RenderableType:
    """The status of a sweep on a terminal: all of it where it has room, else running and failed stages first, and how
    many of each state are left out."""
    whole = StatusTable(statuses, brief=True)
    wide = whole.is_wide(width)
    below = [*status_summary(statuses).splitlines(), *filter(None, [note])]
    rest = sum(len(textwrap.wrap(line, width)) for line in below)
    needed = [1 if wide else 2 + bool(error_of(now)) for now in statuses]
    if 1 + sum(needed) + rest < height:
        return Group(whole, status_summary(statuses), *filter(None, [note]))
    # The latest of what is done says how it goes; of what waits, the next in the plan.
    order = sorted(
        range(len(statuses)),
        key=lambda index: (
            NEWS.index(statuses[index].state),
            -(statuses[index].alive_at or 0) if statuses[index].state == "done" else index,
        ),
    )
    ends = list(accumulate(needed[index] for index in order))
    room = max(
        1, sum(end <= height - rest - 3 for end in ends)
    )  # beside the titles, what is not shown, the cursor
    listed = [statuses[index] for index in order[:room]]
    left = Counter(statuses[index].state for index in order[room:])
    more = ", ".join(f"{left[state]} {state}" for state in COLOURS if left[state])
    parts = [status_summary(statuses), *filter(None, [note])]
    return Group(StatusTable(listed, brief=True), f"not shown: {more}", *parts)


def status_summary(statuses: Sequence[Status]) -> str:
    """How many stages are in each state, which trainings made it worse, and whose journals are damaged."""
    counts = Counter(now.state for now in statuses)
    states = f"{counted(len(statuses), 'stage')}: " + ", ".join(
        f"{counts[s]} {s}" for s in COLOURS if counts[s]
    )
    known = {now.mlflow for now in statuses} - {""}
    mlflow = f"MLflow: {UP_TO_DATE}" if known == {UP_TO_DATE} else ""
    return "\n".join(filter(None, [states, mlflow, worse(statuses), damage(statuses)]))


def worse(statuses: Sequence[Status]) -> str:
    """Which trainings of a quantized network have made it worse; nothing where none has."""
    lost = [(now.stage.key, points) for now in statuses if (points := now.below_start)]
    if not lost:
        return ""
    which = ", ".join(f"{key} by {points:.2f} points" for key, points in lost[:5])
    more = f" and {len(lost) - 5} more" * (len(lost) > 5)
    count = counted(len(lost), "training")
    return f"{count} below the top-1 that calibration alone had reached: {which}{more}"


def damage(statuses: Sequence[Status]) -> str:
    """How many lines of journals are not what was written, and in which; nothing where all are."""
    keys = [now.stage.key for now in statuses if now.damaged]
    if not keys:
        return ""
    total, more = sum(now.damaged for now in statuses), f" and {len(keys) - 5} more" * (len(keys) > 5)
    which = ", ".join(keys[:5]) + more
    words = f"{counted(total, 'damaged line')}, not counted, in the journals of {which}"
    if done := [now.stage.key for now in statuses if now.damaged and now.state == "done"]:
        words += f"; metrics of {', '.join(done[:5])} may be missing: remove their folders and launch again"
    return words


def shown(statuses: Sequence[Status], note: str) -> RenderableType:
    """The status of a sweep, and a note where there is one."""
    return Group(StatusTable(statuses), status_summary(statuses), *filter(None, [note]))
