"""What people see in the terminal: the plan, the status, and the live view of a launch."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from suite import events
from suite.jobs import image_passes
from suite.recipe import Stage
from suite.records import Standing, State, standing

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
    """Each stage: state, epochs, top-1 (grey until it is done), time since its last sign of life, the first line of
    its error; its job and how far MLflow is, where that is known."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in (
        ("key", "left"),
        ("stage", "left"),
        ("state", "left"),
        ("epoch", "right"),
        ("top-1 %", "right"),
        ("age", "right"),
    ):
        table.add_column(title, justify=side, no_wrap=title != "stage")  # type: ignore[arg-type]
    with_jobs = any(now.job for now in standings)
    if with_jobs:
        table.add_column("job")
    with_mlflow = any(now.mlflow for now in standings)
    if with_mlflow:
        table.add_column("MLflow")
    table.add_column("error")
    for now in standings:
        top1 = Text("" if now.top1 is None else f"{now.top1:.2f}", "" if now.outcome else "bright_black")
        age = "" if now.age_seconds is None else span(now.age_seconds)
        state = Text(now.state, style=COLOURS[now.state])
        job = [Text(now.job, "bright_black")] if with_jobs else []
        mlflow = [Text(now.mlflow, "bright_black")] if with_mlflow else []
        said = now.error if now.cause in ("", "code", "diverged") else f"{now.cause}: {now.error}"
        error = Text(said, "red")
        table.add_row(
            Text(now.stage.key, "cyan"), now.stage.name, state, now.epochs, top1, age, *job, *mlflow, error
        )
    return table


def status_summary(standings: Sequence[Standing]) -> str:
    """How many stages are in each state, and whose journals are damaged."""
    counts = Counter(now.state for now in standings)
    states = f"{len(standings)} stages: " + ", ".join(f"{counts[s]} {s}" for s in COLOURS if counts[s])
    return "\n".join(filter(None, [states, damage(standings)]))


def damage(standings: Sequence[Standing]) -> str:
    """How many lines of journals are not what was written, and in which; nothing where all are."""
    keys = [now.stage.key for now in standings if now.damaged]
    if not keys:
        return ""
    total, more = sum(now.damaged for now in standings), f" and {len(keys) - 5} more" * (len(keys) > 5)
    which = ", ".join(keys[:5]) + more
    return f"{total} damaged line{'s' * (total > 1)}, not counted, in the journals of {which}"


class Watch:
    """The live view of stages at work: what runs now and how well, what is done, time left. Where there is no
    terminal, a plain line for each epoch and each result."""

    def __init__(self, console: Console, stages: Sequence[Stage], runs: Path) -> None:
        self.console, self.runs = console, runs
        self.costs = {stage.key: image_passes(stage) for stage in stages}
        self.open = {stage.key: standing(stage, runs) for stage in stages}
        self.finished: dict[str, Standing] = {}
        self._settle()
        self.already = len(self.finished)
        self.todo = sum(self.costs[key] for key in self.open)
        self.before: dict[str, int] = {}
        self.began = time.monotonic()

    def follow(self, ticks: Iterator[None]) -> None:
        """Show how things stand until `ticks` ends, twice a second."""
        if not self.console.is_terminal:
            for _ in ticks:
                self._print(self._settle())
            self._print(self._settle())
            return
        with Live(self._draw(), console=self.console, refresh_per_second=4, transient=True) as live:
            drawn = 0.0
            for _ in ticks:
                if time.monotonic() - drawn > 0.4:
                    self._print(self._settle())
                    live.update(self._draw())
                    drawn = time.monotonic()
        self._print(self._settle())

    def _print(self, lines: Sequence[Text]) -> None:
        for line in lines:
            self.console.print(line, soft_wrap=True)

    def _settle(self) -> list[Text]:
        """Look at all that is not finished; a line for each news since the last look."""
        news = []
        for key, before in list(self.open.items()):
            now = standing(before.stage, self.runs)
            self.open[key] = now
            if not self.console.is_terminal and now.stage.trains_by:
                news += [_epoch_line(now, event) for event in now.journal[len(before.journal) :]]
            fresh_failure = now.state == "failed" and len(now.journal) > len(before.journal)
            if now.state == "done" or fresh_failure:
                news.append(_result_line(now))
            if now.state == "done":
                self.finished[key] = now
                del self.open[key]
        return [line for line in news if line]

    def _draw(self) -> RenderableType:
        running = [now for now in self.open.values() if now.state == "running"]
        rows = Table(box=None, pad_edge=False, show_header=False)
        worked = self.todo - sum(self.costs[key] for key in self.open)
        for now in running:
            told = events.progress(self.runs / now.stage.key) or {"doing": "starts", "part": 0.0}
            worked += int(told["part"] * self.costs[now.stage.key])
            self.before.setdefault(now.stage.key, int(told["part"] * self.costs[now.stage.key]))
            bar = ProgressBar(total=1, completed=told["part"], width=24)
            doing = Text.assemble((told["doing"], "bright_black"), "  ", _how_it_goes(told))
            rows.add_row(Text("running", "cyan"), now.stage.name, bar, doing)
        total = len(self.finished) + len(self.open)
        failed = sum(now.state == "failed" for now in self.open.values())
        elapsed = time.monotonic() - self.began
        gained = worked - sum(self.before.values())  # not what an earlier attempt did
        left = span(elapsed * (self.todo - worked) / gained) if gained > 0 and elapsed > 3 else "..."
        words = f"{len(self.finished)}/{total} done" + (f", {failed} failed" if failed else "")
        overall = Table(box=None, pad_edge=False, show_header=False)
        bar = ProgressBar(total=max(1, self.todo), completed=worked, width=40)
        overall.add_row(Text(words, "bold"), bar, f"{span(elapsed)} so far, about {left} left")
        return Group(rows, overall)


def _result_line(now: Standing) -> Text:
    if now.outcome is None:
        return Text.assemble(("failed  ", "bold red"), now.stage.name, ": ", (now.error, "red"))
    top1 = f"{now.outcome['top1']:6.2f} %"
    took = span(now.outcome["seconds"])
    return Text.assemble(
        ("done  ", "green"), (top1, "bold"), f"  {now.stage.name}  ", (f"({took})", "bright_black")
    )


def _how_it_goes(told: Mapping[str, float | None]) -> str:
    """`loss 1.234  top-1 56.1 %  12,345 images/s`, of what is there."""
    words = []
    if told.get("loss") is not None:
        words.append(f"loss {told['loss']:.3f}")
    if told.get("top1") is not None:
        words.append(f"top-1 {told['top1']:.1f} %")
    if told.get("images_per_s") is not None:
        words.append(f"{told['images_per_s']:,.0f} images/s")
    return "  ".join(words)


def _epoch_line(now: Standing, event: Mapping[str, Any]) -> Text:
    """An epoch of a training in a log: how it went on the images it trained on and on the test split, and the time
    left at the pace since the attempt began. Nothing for other events."""
    sgd, step = now.stage.trains_by, event.get("step", 0)
    if sgd is None or "top1" not in event.get("values", ()) or not step:
        return Text()
    same = [e for e in now.journal if e["attempt"] == event["attempt"]]
    trained: Mapping[str, float] = next(
        (e["values"] for e in same if e.get("step") == step and "train_loss" in e.get("values", ())), {}
    )
    first = min(e["step"] for e in same if "step" in e)
    pace = (event["time"] - same[0]["time"]) / (step - first + 1)
    told = {"loss": trained.get("train_loss"), "images_per_s": trained.get("train_images_per_s")}
    test = f"test top-1 {event['values']['top1']:.2f} %"
    left = f", {span(pace * (sgd.epochs - step))} left" if step < sgd.epochs else ""
    return Text(f"epoch {step}/{sgd.epochs}  {test}  {_how_it_goes(told)}{left}  {now.stage.name}")


@contextmanager
def looking_at_files(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Gives what shows how many files of a data set were looked at, of how many."""
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True)
    task = bar.add_task("looking at the images")

    def report(done: int, total: int) -> None:
        if console.is_terminal:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if console.is_terminal:
            bar.stop()


@contextmanager
def watched(console: Console, stage: Stage, runs: Path, shown: bool) -> Iterator[None]:
    """Show, where `shown`, how a stage goes that this process runs within the block."""
    if not shown:
        yield
        return
    ended = threading.Event()

    def ticks() -> Iterator[None]:
        while not ended.wait(0.5):
            yield

    watch = Watch(console, [stage], runs)
    thread = threading.Thread(target=watch.follow, args=(ticks(),), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
