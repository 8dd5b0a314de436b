"""What people see in the terminal: the plan, the status, and the live view of a launch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from suite import events
from suite.launch import image_passes
from suite.recipe import Stage
from suite.records import Standing, State, standing

COLOURS: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
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


def plan_table(standings: Sequence[Standing]) -> Table:
    """Each stage: key, what it is, what it needs, done or pending."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("key", "stage", "needs", "state"):
        table.add_column(title, no_wrap=title != "stage")
    for now in standings:
        needs = " ".join(needed.key for needed in now.stage.needs)
        state = Text(now.state, style=COLOURS[now.state])
        table.add_row(Text(now.stage.key, "cyan"), now.stage.name, Text(needs, "bright_black"), state)
    return table


def plan_summary(stages: Sequence[Stage], listed: int, standings: Sequence[Standing]) -> str:
    """How many stages there are, how many are done, and how much sharing saves."""
    wanted = Counter(needed.key for stage in stages for needed in stage.needs)
    shared = sum(count > 1 for count in wanted.values())
    saved = sum(count - 1 for count in wanted.values())
    done = sum(now.state == "done" for now in standings)
    return (
        f"{len(stages)} stages for {listed} recipes: {done} done, {len(stages) - done} to run; "
        f"{shared} shared, which saves {saved} trainings or loadings"
    )


def status_table(standings: Sequence[Standing]) -> Table:
    """Each stage: state, top-1, time since its last event, the first line of its error."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in (
        ("key", "left"),
        ("stage", "left"),
        ("state", "left"),
        ("top-1 %", "right"),
        ("age", "right"),
    ):
        table.add_column(title, justify=side, no_wrap=title != "stage")  # type: ignore[arg-type]
    table.add_column("error")
    for now in standings:
        top1 = f"{now.outcome['top1']:.2f}" if now.outcome else ""
        age = "" if now.age_seconds is None else span(now.age_seconds)
        state = Text(now.state, style=COLOURS[now.state])
        table.add_row(Text(now.stage.key, "cyan"), now.stage.name, state, top1, age, Text(now.error, "red"))
    return table


def status_summary(standings: Sequence[Standing]) -> str:
    """How many stages are in each state."""
    counts = Counter(now.state for now in standings)
    return f"{len(standings)} stages: " + ", ".join(f"{counts[s]} {s}" for s in COLOURS if counts[s])


class Watch:
    """The live view of a launch: what runs now, what is done, time left. Plain lines where there is no terminal."""

    def __init__(self, console: Console, stages: Sequence[Stage], runs: Path) -> None:
        self.console, self.runs = console, runs
        self.costs = {stage.key: image_passes(stage) for stage in stages}
        self.open = {stage.key: standing(stage, runs) for stage in stages}
        self.finished: dict[str, Standing] = {}
        self._settle()
        self.already = len(self.finished)
        self.todo = sum(self.costs[key] for key in self.open)
        self.began = time.monotonic()

    def follow(self, ticks: Iterator[None]) -> None:
        """Show how things stand until `ticks` ends, twice a second."""
        if not self.console.is_terminal:
            for _ in ticks:
                for now in self._settle():
                    self.console.print(self._line(now), soft_wrap=True)
            for now in self._settle():
                self.console.print(self._line(now), soft_wrap=True)
            return
        with Live(self._draw(), console=self.console, refresh_per_second=4, transient=True) as live:
            drawn = 0.0
            for _ in ticks:
                if time.monotonic() - drawn > 0.4:
                    for now in self._settle():
                        live.console.print(self._line(now))
                    live.update(self._draw())
                    drawn = time.monotonic()
        for now in self._settle():
            self.console.print(self._line(now))

    def _settle(self) -> list[Standing]:
        """Look at all that is not finished; what became done or failed since the last look."""
        news = []
        for key, before in list(self.open.items()):
            now = standing(before.stage, self.runs)
            self.open[key] = now
            fresh_failure = now.state == "failed" and len(now.journal) > len(before.journal)
            if now.state == "done" or fresh_failure:
                news.append(now)
            if now.state == "done":
                self.finished[key] = now
                del self.open[key]
        return news

    def _line(self, now: Standing) -> Text:
        if now.outcome is None:
            return Text.assemble(("failed  ", "bold red"), now.stage.name, ": ", (now.error, "red"))
        top1 = f"{now.outcome['top1']:6.2f} %"
        took = span(now.outcome["seconds"])
        return Text.assemble(
            ("done  ", "green"), (top1, "bold"), f"  {now.stage.name}  ", (f"({took})", "bright_black")
        )

    def _draw(self) -> RenderableType:
        running = [now for now in self.open.values() if now.state == "running"]
        rows = Table(box=None, pad_edge=False, show_header=False)
        worked = self.todo - sum(self.costs[key] for key in self.open)
        for now in running:
            told = events.progress(self.runs / now.stage.key) or {"doing": "starts", "part": 0.0}
            worked += int(told["part"] * self.costs[now.stage.key])
            bar = ProgressBar(total=1, completed=told["part"], width=24)
            rows.add_row(Text("running", "cyan"), now.stage.name, bar, Text(told["doing"], "bright_black"))
        total = len(self.finished) + len(self.open)
        failed = sum(now.state == "failed" for now in self.open.values())
        elapsed = time.monotonic() - self.began
        left = span(elapsed * (self.todo - worked) / worked) if worked and elapsed > 3 else "..."
        words = f"{len(self.finished)}/{total} done" + (f", {failed} failed" if failed else "")
        overall = Table(box=None, pad_edge=False, show_header=False)
        bar = ProgressBar(total=max(1, self.todo), completed=worked, width=40)
        overall.add_row(Text(words, "bold"), bar, f"{span(elapsed)} so far, about {left} left")
        return Group(rows, overall)
