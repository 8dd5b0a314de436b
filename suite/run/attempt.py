"""One attempt at a stage on one rank: what it records, saves and waits for."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from suite.data import datasets
from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.networks.channels_last import channels_last
from suite.ranks import Ranks
from suite.recipe import Dataset, Stage
from suite.recipe.errors import SuiteError
from suite.record.failure import Failure, reported_failure
from suite.record.files import Folders
from suite.record.journal import Journal
from suite.record.lease import ReplacedError
from suite.run import checkpoint, failures
from suite.stop import Stop

CHECK_EVERY = 10
"""Steps between two checks that several ranks make together: whether one was asked to stop, whether to save."""


def _save_seconds() -> float:
    text = os.environ.get("SUITE_SAVE_SECONDS") or "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SuiteError(f"SUITE_SAVE_SECONDS is {text!r}; set it to a number of seconds from 0 on")
    return seconds


STUCK_SECONDS = 30.0
"""How long a rank that was asked to stop may wait for the others."""
NOTICE_SECONDS = 3.0  # most ranks notice by themselves that another is gone, and record more


class InterruptedRunError(SuiteError):
    """The run was asked to stop; what it reached is saved, and the same command goes on from there."""


@dataclass
class Attempt:
    """What the parts of a run share. The fields without a default are those of `suite.run.stage.run`."""

    stage: Stage
    ranks: Ranks
    folders: Folders
    stop: Stop
    journal: Journal
    splits: set[str] = field(default_factory=set)
    """Those whose images are recorded."""
    last_step_at: float = math.inf
    """When the last step ended, by time.monotonic(); inf where no rank waits for another in a step: before the first,
    after a save, and behind a training."""
    start_top1: float | None = None
    """Percent of the test split before training, where a recipe trains what is quantized already."""
    saved_at: float = field(default_factory=time.monotonic)
    save_every: float = field(default_factory=_save_seconds)
    """Seconds: how much work a run that is killed without warning loses, at most."""
    ended: threading.Event = field(default_factory=threading.Event)

    def images(self, dataset: Dataset, split: str) -> Images | Streamed:
        """A split of the data set; which data it is, is recorded once an attempt."""
        images = datasets.load(dataset, split, self.folders.data, self.ranks.device)
        if split not in self.splits:
            self.splits.add(split)
            self.journal.write("data", split=split, images=len(images), sha256=images.digest)
        return images

    def place(self, model: nn.Module) -> nn.Module:
        """`model` on this rank's device, channels last."""
        return channels_last(model, self.ranks.device)

    def saved(self) -> dict[str, Any] | None:
        """What an earlier attempt saved, the same on every rank."""
        # First on rank 0, which has the journal: a state that builds on lines which it has lost would leave a gap.
        found = checkpoint.load_resumable(self.journal.folder, self._fits) if self.journal.writes else None
        self.ranks.each(None)
        if not self.journal.writes:
            found = checkpoint.load_resumable(self.journal.folder)
        if len(set(self.ranks.each(found[1].name if found else ""))) > 1:
            raise SuiteError(
                f"the ranks see different files in {self.journal.folder}; is it on a shared disk?"
            )
        if found is None:
            return None
        state, file = found
        self.journal.write("resumed", file=file.name, epoch=state["epoch"], batches=state["batches"])
        return state

    def _fits(self, state: dict[str, Any]) -> bool:
        """Whether the journal has all that a saved state builds on; an older version's states do not say."""
        return "journal" not in state or self.journal.reaches(state["journal"])

    def save_or_stop(
        self, count: int, where: str, state: Callable[[], dict[str, Any]], progress: Callable[[], None]
    ) -> None:
        """Save and stop where that was asked for, and record the progress where it is time: all ranks together.

        count: grows, and is in the name of the file; where: in words, for the message; state and progress wait for the
        device.
        """
        due = self.journal.writes and time.monotonic() - self.saved_at >= self.save_every
        wishes = torch.tensor([bool(self.stop.asked_by), due, self.journal.progress_due], dtype=torch.int32)
        if self.ranks.world_size > 1:
            wishes = self.ranks.max(wishes.to(self.ranks.device))
        stop, save, record = wishes.tolist()
        if stop or save:
            self.last_step_at = math.inf
            content = state()
            if self.journal.writes:
                self._save(content, count, must=stop)
            self.saved_at = time.monotonic()
        if stop:
            raise InterruptedRunError(
                f"stopped at {where}, which is saved; the same command goes on from there"
            )
        if record:
            progress()

    def _save(self, state: dict[str, Any], count: int, must: bool) -> None:
        """Save a state to resume from. Unless it `must` be saved now, a disk that is full costs the state, not the
        run: it may have room the next time."""
        try:
            self.journal.sync()
            checkpoint.save_resumable(state | {"journal": self.journal.position}, self.journal.folder, count)
        except OSError as error:
            if must or failures.of(error).cause != "disk":
                raise
            print(f"step {count} is not saved: {error}; the run goes on", flush=True)

    def stop_if_asked(self) -> None:
        """Raise InterruptedRunError where that was asked for, and nothing has to be saved."""
        if self.stop.asked_by:
            raise InterruptedRunError("stopped before it was done; the same command starts it again")

    def record_failure(self, failure: Failure) -> None:
        """Write it into the journal; without its traceback where the disk has no room for that."""
        with suppress(ReplacedError):
            for short in (failure, replace(failure, traceback="")):
                with suppress(OSError):
                    return self.journal.write("failed", **asdict(short))

    def watch_others(self) -> None:
        """From now on, end this process when another rank has failed, or is gone: a collective would wait for ever."""
        if self.ranks.world_size > 1:
            threading.Thread(target=self._watch_others, daemon=True).start()

    def _watch_others(self) -> None:
        while not self.ended.wait(0.5):
            if self.journal.writes and self.journal.replaced:
                os._exit(1)
            elsewhere = reported_failure(self.journal.folder)
            stuck = self.stop.asked_by and time.monotonic() - self.last_step_at > STUCK_SECONDS
            if not elsewhere and not stuck:
                continue
            if self.ended.wait(NOTICE_SECONDS):
                return
            if self.journal.writes:
                self.record_failure(elsewhere or Failure("another rank is gone", "code"))
            os._exit(1)
