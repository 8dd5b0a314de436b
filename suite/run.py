"""The main path: one stage on this rank. It leaves runs/KEY/, and nothing else knows how."""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suite import checkpoint, data, events, failures, models, system
from suite.evaluate import Score, evaluate
from suite.failures import Failure
from suite.imagenet import Streamed
from suite.provenance import provenance
from suite.ranks import Ranks
from suite.recipe import FORMAT, Calibration, Dataset, Pretrained, Recipe, Sgd, Stage, Training
from suite.settings import Folders
from suite.signals import Stop
from suite.surgery import size_mb
from suite.train import Step, fit
from suite.values import SuiteError, to_json

LOOK_EVERY = 10
"""Steps between two looks that several ranks take together: whether one was asked to stop, whether to save."""

SAVE_EVERY_SECONDS = float(os.environ.get("SUITE_SAVE_SECONDS", "300"))
"""How much work a run that is killed without a word loses, at most."""

STUCK_SECONDS = 30.0
"""How long a rank that was asked to stop may wait for the others."""


class InterruptedRunError(SuiteError):
    """The run was asked to stop; what it reached is saved, and the same command goes on from there."""


def run(stage: Stage, ranks: Ranks, folders: Folders, stop: Stop | None = None) -> None:
    """Do `stage` unless it is done, going on from what an earlier attempt saved. What it needs must be done.

    Raises what went wrong, after recording it, and InterruptedRunError when `stop` asked and the state is saved.
    """
    ranks.check(stage.world_size)
    folder = folders.runs / stage.key
    if not ranks.writes:
        if ranks.agree(False):
            _Run(stage, ranks, folders, stop or Stop(), events.Journal(folder, writes=False)).other_rank()
        return
    with events.lock(folder) as lease:
        if not ranks.agree(events.outcome(folder) is None):
            return
        journal = events.Journal(folder, lease=lease)
        try:
            _Run(stage, ranks, folders, stop or Stop(), journal).first_rank()
        finally:
            journal.close()


@dataclass
class _Run:
    """One attempt at a stage on one rank."""

    stage: Stage
    ranks: Ranks
    folders: Folders
    stop: Stop
    journal: events.Journal

    def __post_init__(self) -> None:
        self.began = self.saved_at = time.monotonic()
        self.alive_at = math.inf
        """The last step's time; not known before the first, and after a save, which may take long."""
        self.splits: set[str] = set()
        self.ended = threading.Event()
        if self.ranks.world_size > 1:
            threading.Thread(target=self._watch_others, daemon=True).start()

    def first_rank(self) -> None:
        """Work and record it."""
        folder, facts = self.journal.folder, provenance(self.ranks.device)
        try:
            checkpoint.write_json({**_description(self.stage), **facts}, folder / "stage.json")
            where = {name: facts[name] for name in ("host", "pid", "device", "commit")}
            self.journal.write("started", **where, job=os.environ.get("SUITE_JOB", ""))
            with system.sampled(self.journal, self.ranks):
                outcome = self._work()
            self.journal.finish(self.stage.key, **outcome, seconds=time.monotonic() - self.began)
            for file in checkpoint.resumable(folder):
                file.unlink()
        except InterruptedRunError as asked:
            self.journal.write("interrupted", signal=self.stop.asked_by, reason=str(asked))
            raise
        except events.ReplacedError:
            raise
        except Exception as error:
            self._record(failures.explained(error, self.journal.folder, self.ranks.world_size))
            raise
        finally:
            self.ended.set()

    def other_rank(self) -> None:
        """Work; tell rank 0 what goes wrong here."""
        try:
            with system.sampled(self.journal, self.ranks):
                self._work()
        except InterruptedRunError:
            raise
        except Exception as error:
            failures.tell(self.journal.folder, self.ranks.rank, failures.of(error))
            raise
        finally:
            self.ended.set()

    def _record(self, failure: Failure) -> None:
        with suppress(OSError, events.ReplacedError):  # a full disk may take no line more
            self.journal.write("failed", **asdict(failure))

    def _watch_others(self) -> None:
        """End this process when another rank has failed, or is gone: a collective would wait for it for ever."""
        while not self.ended.wait(0.5):
            if self.journal.writes and self.journal.replaced:
                os._exit(1)
            elsewhere = failures.told(self.journal.folder)
            stuck = self.stop.asked_by and time.monotonic() - self.alive_at > STUCK_SECONDS
            if not elsewhere and not stuck:
                continue
            if self.ended.wait(3):  # most ranks notice by themselves, and say more
                return
            if self.journal.writes:
                self._record(elsewhere or Failure("another rank is gone", "code"))
            os._exit(1)

    def _work(self) -> dict[str, Any]:
        match self.stage:
            case Training() as stage:
                torch.manual_seed(stage.seed)
                model = self._place(models.build(stage.network))
                self._fit(model, stage, stage.sgd, stage.seed)
                return {**self._score(model, stage, stage.sgd.epochs), **self._save(model)}
            case Pretrained() as stage:
                return self._score(self._place(load_float(stage, self.folders)), stage, 0)
            case Recipe() as stage:
                return self._quantize(stage)
        raise SuiteError(f"{type(self.stage).__name__} is no stage that can run")

    def _quantize(self, stage: Recipe) -> dict[str, Any]:
        method, dataset = stage.method, stage.start.dataset
        if getattr(method, "from_scratch", False):
            torch.manual_seed(stage.seed)
            model = models.build(stage.start.network)
        else:
            model = load_float(stage.start, self.folders)
        model = method.prepare(self._place(model))
        step = 0
        match method.feed:
            case Calibration() as calibration:
                images = self._images(dataset, "train")
                with torch.no_grad():
                    for number, x in enumerate(images.calibration_batches(calibration), start=1):
                        model(x)
                        self._stop_if_asked()
                        part = number * calibration.batch / (2 * calibration.images)
                        self.journal.progress("calibrate", part)
            case Sgd() as sgd:
                torch.manual_seed(stage.seed)
                self._fit(model, stage.start, sgd, stage.seed)
                step = sgd.epochs
        model = method.convert(model)
        outcome = self._score(model, stage.start, step)
        return {**outcome, **self._save(model)} if step else outcome

    def _fit(self, model: nn.Module, start: Training | Pretrained, sgd: Sgd, seed: int) -> None:
        """Train `model` in place, evaluating after each epoch but the last, which is the caller's."""
        images = self._images(start.dataset, "train")
        state = self._resume()
        compiled = self.ranks.device.type == "cuda" and os.environ.get("SUITE_COMPILE") != "0"
        began, images_before = time.monotonic(), None
        for step in fit(model, images, sgd, seed, self.ranks, state, compiled):
            self.alive_at = time.monotonic()
            if images_before is None:
                images_before = 0 if step.batches == 1 else step.images
            rate = (step.images - images_before) / (time.monotonic() - began)
            if not step.epoch_ended:
                self._look(step, sgd, len(images), rate)
                continue
            now = step.read()
            self.journal.metrics(
                step.epoch,
                train_loss=now.loss,
                train_top1=now.top1,
                train_images_per_s=rate,
                skipped_steps=now.skipped_steps,
            )
            if step.epoch < sgd.epochs:
                self._score(model, start, step.epoch)
            began, images_before = time.monotonic(), 0

    def _images(self, dataset: Dataset, split: str) -> data.Images | Streamed:
        """A split of the data set; which data it is, is recorded once an attempt."""
        images = data.load(dataset, split, self.folders.data, self.ranks.device)
        if split not in self.splits:
            self.splits.add(split)
            self.journal.write("data", split=split, images=len(images), sha256=images.digest)
        return images

    def _resume(self) -> dict[str, Any] | None:
        """What an earlier attempt saved, the same on every rank."""
        found = checkpoint.load_resumable(self.journal.folder)
        if len(set(self.ranks.each(found[1].name if found else ""))) > 1:
            raise SuiteError(
                f"the ranks see different files in {self.journal.folder}; is it on a shared disk?"
            )
        if found is None:
            return None
        self.journal.write(
            "resumed", file=found[1].name, epoch=found[0]["epoch"], batches=found[0]["batches"]
        )
        return found[0]

    def _look(self, step: Step, sgd: Sgd, images: int, rate: float) -> None:
        """Save and stop where that was asked for, tell the progress where it is time: all ranks at the same step."""
        if self.ranks.world_size > 1 and step.total % LOOK_EVERY:
            return
        due = self.journal.writes and time.monotonic() - self.saved_at >= SAVE_EVERY_SECONDS
        wishes = torch.tensor([bool(self.stop.asked_by), due, self.journal.progress_due], dtype=torch.int32)
        if self.ranks.world_size > 1:
            wishes = self.ranks.max(wishes.to(self.ranks.device))
        stop, save, tell = wishes.tolist()
        if stop or save:
            self.alive_at = math.inf
            state = step.state()
            if self.journal.writes:
                self._keep(state, step.total, must=stop)
            self.saved_at = time.monotonic()
        if stop:
            where = f"epoch {step.epoch}, step {step.total}"
            raise InterruptedRunError(
                f"stopped at {where}, which is saved; the same command goes on from there"
            )
        if tell:
            now = step.read()
            part = (step.epoch - 1 + step.images / images) / sgd.epochs
            doing = f"train epoch {step.epoch}/{sgd.epochs}"
            self.journal.progress(doing, part, loss=now.loss, top1=now.top1, images_per_s=rate)

    def _keep(self, state: dict[str, Any], step: int, must: bool) -> None:
        """Save a state to resume from. Unless it `must` be saved now, a disk that is full costs the state, not the
        run: it may have room the next time."""
        try:
            self.journal.sync()
            checkpoint.save_resumable(state, self.journal.folder, step)
        except OSError as error:
            if must or failures.of(error).cause != "disk":
                raise
            print(f"step {step} is not saved: {error}; the run goes on", flush=True)

    def _score(self, model: nn.Module, start: Training | Pretrained, step: int) -> dict[str, Any]:
        """Evaluate on the test split and record it at `step`."""
        images = self._images(start.dataset, "test")
        began = time.monotonic()
        for progress in evaluate(model, images, self.ranks):
            self.alive_at = time.monotonic()
            if not isinstance(progress, Score) and step == 0:
                self._stop_if_asked()
                self.journal.progress("evaluate", (1 + progress / len(images)) / 2)
        assert isinstance(progress, Score)
        rate = progress.images / (time.monotonic() - began)
        values = {"top1": progress.top1, "top5": progress.top5, "loss": progress.loss}
        values |= {"images_per_s": rate, "model_size_mb": size_mb(model)}
        self.journal.metrics(step, **values)
        return {**values, "images": progress.images, "correct": progress.packed}

    def _stop_if_asked(self) -> None:
        if self.stop.asked_by:
            raise InterruptedRunError("stopped before it was done; the same command starts it again")

    def _place(self, model: nn.Module) -> nn.Module:
        placed: nn.Module = model.to(self.ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return placed

    def _save(self, model: nn.Module) -> dict[str, Any]:
        if not self.journal.writes:
            return {}
        file = self.journal.folder / "checkpoint.pt"
        return {"checkpoint": checkpoint.save({"model": model.state_dict()}, file)}


def _description(stage: Stage) -> dict[str, Any]:
    record = {"format": FORMAT, "key": stage.key, "name": stage.name, "kind": type(stage).__name__}
    return {**record, "params": stage.params, "stage": to_json(stage)}


def load_float(start: Training | Pretrained, folders: Folders) -> nn.Module:
    """The float network that `start` left, on the CPU. Raises SuiteError where its file is missing or changed."""
    if isinstance(start, Pretrained):
        file = Path(start.file)
        if not file.is_file() or checkpoint.sha256(file) != start.sha256:
            raise SuiteError(
                f"{file} is not the checkpoint of sha256 {start.sha256[:16]} that was planned; launch the sweep again"
            )
        return models.load_weights(start.network, file)
    folder = folders.runs / start.key
    record = events.outcome(folder)
    if record is None:
        raise SuiteError(f"{start.name} ({start.key}) is not done yet; run it first")
    saved = record["checkpoint"]
    state = checkpoint.load(folder / Path(saved["file"]).name, saved["sha256"])
    model = models.build(start.network)
    model.load_state_dict(state["model"])
    return model
