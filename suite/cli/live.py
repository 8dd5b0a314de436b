"""The live view of a launch."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from suite.cli.rows import literal
from suite.cli.tables import fitted, span
from suite.launch.grouping import image_passes
from suite.recipe import Stage
from suite.record.files import printable
from suite.record.journal import read_progress
from suite.record.status import Status, Statuses

CHECK_SECONDS = 0.4
"""Between two checks of the stages of a launch; the ticks of a launcher come more often."""

PLAIN_SECONDS = 5.0
"""Between two lines in a log that say what is being done."""

STATUS_SECONDS = 5.0
"""Between two checks of `status --watch`."""

AGES_SECONDS = 60.0
"""After so long the table of `status --watch` is drawn again, though nothing but the ages has changed."""


class Watch:
    """The live view of stages at work: what runs now and how well, what is done, time left. Where there is no
    terminal, a plain line for each epoch and each result."""

    def __init__(self, console: Console, stages: Sequence[Stage], runs: Path) -> None:
        self.console, self.runs, self.statuses = console, runs, Statuses(runs)
        self.costs = {stage.key: image_passes(stage) for stage in stages}
        self.open = {now.stage.key: now for now in self.statuses.of_all(stages)}
        self.finished: dict[str, Status] = {}
        self.has_started_line = False
        """Whether a log has a line of a stage that started."""
        self._check_open()
        self.already = len(self.finished)
        self.todo = sum(self.costs[key] for key in self.open)
        self.done_before: dict[str, int] = {}
        """By key, the image passes that an earlier attempt of a running stage had done."""
        self.began = time.monotonic()

    def follow(self, ticks: Iterator[None]) -> None:
        """Show how far the stages are until `ticks` ends, twice a second."""
        if not self.console.is_terminal:
            for _ in _spaced(ticks, CHECK_SECONDS):
                self._print(self._check_open())
        else:
            with Live(self._draw(), console=self.console, auto_refresh=False, transient=True) as live:
                for _ in _spaced(ticks, CHECK_SECONDS):
                    self._print(self._check_open())
                    live.update(self._draw(), refresh=True)
        self._print(self._check_open())

    def _print(self, lines: Sequence[Text]) -> None:
        for line in lines:
            self.console.print(line, soft_wrap=True)

    def _check_open(self) -> list[Text]:
        """Check all that is not finished; a line for each news since the last check."""
        news: list[Text] = []
        for now in self.statuses.of_all([before.stage for before in self.open.values()]):
            before = self.open[now.stage.key]
            if now is not before:
                news += self._news(before, now)
            self.open[now.stage.key] = now
            if now.state == "done":
                self.finished[now.stage.key] = self.open.pop(now.stage.key)
        return [line for line in news if line]

    def _news(self, before: Status, now: Status) -> list[Text]:
        """The lines for what has become of a stage since it was as `before`."""
        news = []
        if not self.console.is_terminal and now.state == "running" and before.state != "running":
            # In a log the first epoch may be a long time away; of light stages the first says that it goes on.
            if now.stage.trains_by or not self.has_started_line:
                news.append(Text(f"started  {printable(now.stage.name)}"))
            self.has_started_line = True
        appended = now.journal[len(before.journal) :]
        if not self.console.is_terminal and now.stage.trains_by:
            news += [_epoch_line(now, event) for event in appended]
        if now.state == "done" or (now.state == "failed" and appended):
            news.append(_result_line(now))
        return news

    def _draw(self) -> RenderableType:
        running = [now for now in self.open.values() if now.state == "running"]
        rows = Table(box=None, pad_edge=False, show_header=False)
        worked = self.todo - sum(self.costs[key] for key in self.open)
        for now in running:
            progress = read_progress(self.runs / now.stage.key) or {"doing": "starts", "part": 0.0}
            worked += int(progress["part"] * self.costs[now.stage.key])
            self.done_before.setdefault(now.stage.key, int(progress["part"] * self.costs[now.stage.key]))
            bar = ProgressBar(total=1, completed=progress["part"], width=24)
            doing = Text.assemble((progress["doing"], "bright_black"), "  ", _how_it_goes(progress))
            rows.add_row(Text("running", "cyan"), Text(printable(now.stage.name)), bar, doing)
        total = len(self.finished) + len(self.open)
        failed = sum(now.state == "failed" for now in self.open.values())
        elapsed = time.monotonic() - self.began
        gained = worked - sum(self.done_before.values())  # not what an earlier attempt did
        left = span(elapsed * (self.todo - worked) / gained) if gained > 0 and elapsed > 3 else "..."
        words = f"{len(self.finished)}/{total} done" + (f", {failed} failed" if failed else "")
        overall = Table(box=None, pad_edge=False, show_header=False)
        bar = ProgressBar(total=max(1, self.todo), completed=worked, width=40)
        overall.add_row(Text(words, "bold"), bar, f"{span(elapsed)} so far, about {left} left")
        return Group(rows, overall)


def _spaced(ticks: Iterator[None], seconds: float) -> Iterator[None]:
    """Those of `ticks` that are at least `seconds` apart; all are waited for."""
    due = 0.0
    for _ in ticks:
        if time.monotonic() >= due:
            yield
            due = time.monotonic() + seconds


def _result_line(now: Status) -> Text:
    if now.outcome is None:
        return Text.assemble(("failed  ", "bold red"), printable(now.stage.name), ": ", (now.error, "red"))
    top1 = "     ? %" if now.top1 is None else f"{now.top1:6.2f} %"
    took = span(float(now.outcome.get("seconds") or 0.0))
    return Text.assemble(
        *(
            ("done  ", "green"),
            (top1, "bold"),
            f"  {printable(now.stage.name)}  ",
            (f"({took})", "bright_black"),
        ),
        (_lost(now.below_start), "yellow"),
    )


def _lost(points: float) -> str:
    """That a training made a quantized network worse; nothing where it did not."""
    return f"  {points:.2f} points below calibration alone" if points else ""


def _how_it_goes(progress: Mapping[str, float | None]) -> str:
    """`loss 1.234  top-1 56.1 %  12,345 images/s`, of what is there."""
    words = []
    if progress.get("loss") is not None:
        words.append(f"loss {progress['loss']:.3f}")
    if progress.get("top1") is not None:
        words.append(f"top-1 {progress['top1']:.1f} %")
    if progress.get("images_per_s") is not None:
        words.append(f"{progress['images_per_s']:,.0f} images/s")
    return "  ".join(words)


def _epoch_line(now: Status, event: Mapping[str, Any]) -> Text:
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
    progress = {"loss": trained.get("train_loss"), "images_per_s": trained.get("train_images_per_s")}
    start = next(
        (e["values"]["top1"] for e in now.journal if e.get("step") == 0 and "top1" in e["values"]), None
    )
    lost = 0.0 if start is None else max(0.0, start - event["values"]["top1"])
    test = f"test top-1 {event['values']['top1']:.2f} %{_lost(lost)}"
    left = f", {span(pace * (sgd.epochs - step))} left" if step < sgd.epochs else ""
    return Text(
        f"epoch {step}/{sgd.epochs}  {test}  {_how_it_goes(progress)}{left}  {printable(now.stage.name)}"
    )


def watch_status(console: Console, check: Callable[[], tuple[Sequence[Status], str]]) -> NoReturn:
    """Show what `check` gives, statuses and a note, until the user ends it. It is drawn again when it has changed,
    and each minute for the ages."""

    def drawn_now() -> RenderableType:
        return fitted(*seen, console.width, console.height)

    seen, drawn = check(), time.monotonic()
    with Live(drawn_now(), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            time.sleep(STATUS_SECONDS)
            if (now := check()) != seen or time.monotonic() - drawn > AGES_SECONDS:
                seen, drawn = now, time.monotonic()
                live.update(drawn_now(), refresh=True)


@contextmanager
def checking_files(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Gives what shows how many files of a data set are checked, of how many."""
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True)
    task = bar.add_task("checking the images")

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
def doing(console: Console) -> Iterator[Callable[[str], None]]:
    """Gives what shows what is being done: on a terminal in one line that goes away, else a line each on standard
    error, at most one in PLAIN_SECONDS."""
    if console.is_terminal:
        with console.status("") as shown:
            yield lambda words: shown.update(literal(words))
        return
    plain, last = Console(stderr=True), -math.inf

    def say(words: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            plain.print(words, markup=False, highlight=False, soft_wrap=True)
            last = time.monotonic()

    yield say


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
