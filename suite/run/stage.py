"""The main path: one stage on this rank. It leaves runs/KEY/, and nothing else knows how."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from suite import networks
from suite.data import cifar, datasets
from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.process.ranks import Ranks
from suite.process.stop import Stop
from suite.quantize import batch_norm
from suite.quantize.model_size import size_mb
from suite.recipe import FORMAT, Calibration, Dataset, Pretrained, Recipe, Sgd, Stage, Training
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.recipe.sources import sources
from suite.record import files, system_metrics
from suite.record.failure import Failure, report_failure, reported_failure
from suite.record.files import Folders
from suite.record.journal import Journal, read_outcome
from suite.record.lease import ReplacedError, lock
from suite.record.provenance import provenance
from suite.run import checkpoint, failures, layer_report
from suite.run.start import crops, load_float, network_of, observed, prepared
from suite.train.bfloat16 import kernels
from suite.train.evaluate import Score, evaluate
from suite.train.fit import Step, fit

LOOK_EVERY = 10
"""Steps between two looks that several ranks take together: whether one was asked to stop, whether to save."""

SAVE_EVERY_SECONDS = float(os.environ.get("SUITE_SAVE_SECONDS", "300"))
"""How much work a run that is killed without a word loses, at most."""

STUCK_SECONDS = 30.0
"""How long a rank that was asked to stop may wait for the others."""
NOTICE_SECONDS = 3.0  # most ranks notice by themselves that another is gone, and say more


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
            _Run(stage, ranks, folders, stop or Stop(), Journal(folder, writes=False)).other_rank()
        return
    with lock(folder) as lease:
        if not ranks.agree(read_outcome(folder) is None):
            return
        journal = Journal(folder, lease=lease)
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
    journal: Journal

    def __post_init__(self) -> None:
        self.began = self.saved_at = time.monotonic()
        self.alive_at = math.inf
        """The last step's time; not known before the first, after a save, and where no rank waits for another."""
        self.splits: set[str] = set()
        self.confusion: Callable[[], dict[str, Any]] = dict
        """Of the last evaluation."""
        self.ended = threading.Event()
        if self.ranks.world_size > 1:
            threading.Thread(target=self._watch_others, daemon=True).start()

    def first_rank(self) -> None:
        """Work and record it."""
        folder, device = self.journal.folder, self.ranks.device
        facts = {**provenance(device), "bfloat16": kernels(device), "sources": sources(self.stage)}
        try:
            files.write_json({**_description(self.stage), **facts}, folder / "stage.json")
            where = {name: facts[name] for name in ("host", "pid", "device", "bfloat16", "commit", "sources")}
            self.journal.write("started", **where, job=os.environ.get("SUITE_JOB", ""))
            with system_metrics.sampled(self.journal, self.ranks):
                outcome = self._work()
            with failures.survived("confusion.json"):
                self.journal.artifact("confusion.json", layer_report.encoded(self.confusion()))
            self.journal.finish(self.stage.key, **outcome, seconds=time.monotonic() - self.began)
            for file in checkpoint.resumable(folder):
                file.unlink()
        except InterruptedRunError as asked:
            self.journal.write("interrupted", signal=self.stop.asked_by, reason=str(asked))
            raise
        except ReplacedError:
            raise
        except Exception as error:
            self._record(failures.explained(error, self.journal.folder, self.ranks.world_size))
            raise
        finally:
            self.ended.set()

    def other_rank(self) -> None:
        """Work; tell rank 0 what goes wrong here."""
        try:
            with system_metrics.sampled(self.journal, self.ranks):
                self._work()
        except InterruptedRunError:
            raise
        except Exception as error:
            report_failure(self.journal.folder, self.ranks.rank, failures.of(error))
            raise
        finally:
            self.ended.set()

    def _record(self, failure: Failure) -> None:
        with suppress(ReplacedError):
            for told in (
                failure,
                replace(failure, traceback=""),
            ):  # a full disk may have room for the shorter one
                with suppress(OSError):
                    return self.journal.write("failed", **asdict(told))

    def _watch_others(self) -> None:
        """End this process when another rank has failed, or is gone: a collective would wait for it for ever."""
        while not self.ended.wait(0.5):
            if self.journal.writes and self.journal.replaced:
                os._exit(1)
            elsewhere = reported_failure(self.journal.folder)
            stuck = self.stop.asked_by and time.monotonic() - self.alive_at > STUCK_SECONDS
            if not elsewhere and not stuck:
                continue
            if self.ended.wait(NOTICE_SECONDS):
                return
            if self.journal.writes:
                self._record(elsewhere or Failure("another rank is gone", "code"))
            os._exit(1)

    def _work(self) -> dict[str, Any]:
        match self.stage:
            case Training() as stage:
                torch.manual_seed(stage.seed)
                model = self._place(networks.build(stage.network))
                self._fit(model, stage, stage.sgd, stage.seed)
                return {**self._score(model, stage, stage.sgd.epochs), **self._save(model)}
            case Pretrained() as stage:
                return self._score(self._place(load_float(stage, self.folders)), stage, 0)
            case Recipe() as stage:
                return self._quantize(stage)
        raise SuiteError(f"{type(self.stage).__name__} is no stage that can run")

    def _quantize(self, stage: Recipe) -> dict[str, Any]:
        method, network = stage.method, self._place(network_of(stage, self.folders))
        model = prepared(stage, network)
        step = self._feed(stage, network, model)
        self.alive_at = math.inf
        weights: layer_report.Weights = {}
        with failures.survived("the float weights"):
            weights = layer_report.float_weights(network, model) if self.journal.writes else {}
        model = method.convert(model)
        if stage.batch_norm == "re-estimated":
            model = batch_norm.estimate_again(model, crops(stage, self._images(stage.start.dataset, "train")))
        outcome = self._score(model, stage.start, step) | (self._save(model) if step else {})
        self.alive_at = math.inf
        if weights:  # rank 0 alone, and last: to look at a model may move its ranges
            self._look_below(stage.start.dataset, network, weights, model)
        return outcome

    def _feed(self, stage: Recipe, network: nn.Module, model: nn.Module) -> int:
        """Give the prepared `model` the data that its method asks for; the epochs that it trained."""
        match stage.method.feed:
            case Calibration() as calibration if getattr(stage.method, "observes", False):
                batches = self._calibration(stage.start.dataset, calibration)
                digest = self._images(stage.start.dataset, "train").digest
                folder = self.folders.runs / stage.start.key
                seen, shared = observed(network, batches, calibration, digest, folder)
                self.journal.write("observed", images=calibration.images, shared=shared)
                stage.method.take_ranges(model, seen)  # type: ignore[attr-defined]
            case Calibration() as calibration:
                with torch.no_grad():
                    for x in self._calibration(stage.start.dataset, calibration):
                        model(x)
            case Sgd() as sgd:
                torch.manual_seed(stage.seed)
                self._fit(model, stage.start, sgd, stage.seed)
                return sgd.epochs
        return 0

    def _calibration(self, dataset: Dataset, calibration: Calibration) -> Iterator[Tensor]:
        batches = self._images(dataset, "train").calibration_batches(calibration)
        for number, x in enumerate(batches, start=1):
            yield x
            if self.ranks.world_size == 1:  # several would stop at different places
                self._stop_if_asked()
            self.journal.progress("calibrate", number * calibration.batch / (2 * calibration.images))

    def _look_below(
        self, dataset: Dataset, network: nn.Module, weights: layer_report.Weights, model: nn.Module
    ) -> None:
        batch = None
        with failures.survived("the inputs of the layers"):
            batch = layer_report.batch(self._images(dataset, "test"))
        with failures.survived("layers.json"):
            told = layer_report.layers(network, weights, model, batch)
            self.journal.artifact("layers.json", layer_report.encoded(told))

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

    def _images(self, dataset: Dataset, split: str) -> Images | Streamed:
        """A split of the data set; which data it is, is recorded once an attempt."""
        images = datasets.load(dataset, split, self.folders.data, self.ranks.device)
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
        named = start.network.classes, cifar.CLASSES.get(start.dataset.name)
        self.confusion = partial(layer_report.confusion, images.labels, progress.predicted, *named)
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
