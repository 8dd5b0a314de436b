"""The main path: one stage on this rank. It leaves runs/KEY/, and nothing else knows how."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suite import checkpoint, data, events, models
from suite.evaluate import Score, evaluate
from suite.provenance import provenance
from suite.ranks import Ranks
from suite.recipe import FORMAT, Calibration, Pretrained, Recipe, Sgd, Stage, Training
from suite.surgery import size_mb
from suite.train import fit
from suite.values import SuiteError, to_json


@dataclass(frozen=True)
class Folders:
    """Where runs are written and where data sets lie."""

    runs: Path
    data: Path


def run(stage: Stage, ranks: Ranks, folders: Folders) -> None:
    """Do `stage` unless it is done. What it needs must be done. Raises what went wrong, after recording it."""
    folder = folders.runs / stage.key
    ranks.check(stage.world_size if isinstance(stage, Training) else 1)
    if not ranks.writes:
        if ranks.agree(False):
            _work(stage, ranks, folders, events.Journal(folder, writes=False))
        return
    with events.lock(folder):
        if not ranks.agree(events.outcome(folder) is None):
            return
        journal = events.Journal(folder)
        began = time.perf_counter()
        try:
            facts = provenance(ranks.device)
            checkpoint.write_json({**_description(stage), **facts}, folder / "stage.json")
            journal.write("started", **{name: facts[name] for name in ("host", "pid", "device", "commit")})
            outcome = _work(stage, ranks, folders, journal)
            journal.finish(stage.key, **outcome, seconds=time.perf_counter() - began)
        except Exception as error:
            journal.write("failed", error=_first_line(error), traceback=traceback.format_exc())
            raise
        finally:
            journal.close()


def _description(stage: Stage) -> dict[str, Any]:
    record = {"format": FORMAT, "key": stage.key, "name": stage.name, "kind": type(stage).__name__}
    return {**record, "params": stage.params, "stage": to_json(stage)}


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [""]
    return text[0] if isinstance(error, SuiteError) else f"{type(error).__name__}: {text[0]}"


def _work(stage: Stage, ranks: Ranks, folders: Folders, journal: events.Journal) -> dict[str, Any]:
    match stage:
        case Training():
            torch.manual_seed(stage.seed)
            model = _place(models.build(stage.network), ranks)
            _fit(model, stage, stage.sgd, stage.seed, ranks, folders, journal)
            outcome = _score(model, stage, stage.sgd.epochs, ranks, folders, journal)
            return {**outcome, **_save(model, journal)}
        case Pretrained():
            return _score(_place(load_float(stage, folders), ranks), stage, 0, ranks, folders, journal)
        case Recipe():
            return _quantize(stage, ranks, folders, journal)
    raise SuiteError(f"{type(stage).__name__} is no stage that can run")


def _quantize(stage: Recipe, ranks: Ranks, folders: Folders, journal: events.Journal) -> dict[str, Any]:
    method, dataset = stage.method, stage.start.dataset
    model = method.prepare(_place(load_float(stage.start, folders), ranks))
    step = 0
    match method.feed:
        case Calibration() as calibration:
            images = data.load(dataset, "train", folders.data, ranks.device)
            with torch.no_grad():
                for number, x in enumerate(data.calibration_batches(images, calibration), start=1):
                    model(x)
                    journal.progress("calibrate", number * calibration.batch / (2 * calibration.images))
        case Sgd() as sgd:
            torch.manual_seed(stage.seed)
            _fit(model, stage.start, sgd, stage.seed, ranks, folders, journal)
            step = sgd.epochs
    model = method.convert(model)
    outcome = _score(model, stage.start, step, ranks, folders, journal)
    return {**outcome, **_save(model, journal)} if step else outcome


def _fit(
    model: nn.Module,
    start: Training | Pretrained,
    sgd: Sgd,
    seed: int,
    ranks: Ranks,
    folders: Folders,
    journal: events.Journal,
) -> None:
    """Train `model` in place, evaluating after each epoch but the last, which is the caller's."""
    images = data.load(start.dataset, "train", folders.data, ranks.device)
    began = time.perf_counter()
    for step in fit(model, images, sgd, seed, ranks):
        through = step.epoch - 1 + step.images / len(images)
        journal.progress(f"train epoch {step.epoch}/{sgd.epochs}", through / sgd.epochs)
        if step.loss is not None:
            rate = step.images / (time.perf_counter() - began)
            journal.metrics(
                step.epoch, train_loss=step.loss, train_images_per_s=rate, skipped_steps=step.skipped_steps
            )
            if step.epoch < sgd.epochs:
                _score(model, start, step.epoch, ranks, folders, journal)
            began = time.perf_counter()


def _score(
    model: nn.Module,
    start: Training | Pretrained,
    step: int,
    ranks: Ranks,
    folders: Folders,
    journal: events.Journal,
) -> dict[str, Any]:
    """Evaluate on the test split and record it at `step`."""
    images = data.load(start.dataset, "test", folders.data, ranks.device)
    began = time.perf_counter()
    for progress in evaluate(model, images, ranks):
        if not isinstance(progress, Score) and step == 0:
            journal.progress("evaluate", (1 + progress / len(images)) / 2)
    assert isinstance(progress, Score)
    rate = progress.images / (time.perf_counter() - began)
    values = {"top1": progress.top1, "top5": progress.top5, "loss": progress.loss}
    values |= {"images_per_s": rate, "model_size_mb": size_mb(model)}
    journal.metrics(step, **values)
    return {**values, "images": progress.images, "correct": progress.packed}


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
    state = checkpoint.load(folder / record["checkpoint"]["file"], record["checkpoint"]["sha256"])
    model = models.build(start.network)
    model.load_state_dict(state["model"])
    return model


def _place(model: nn.Module, ranks: Ranks) -> nn.Module:
    return model.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _save(model: nn.Module, journal: events.Journal) -> dict[str, Any]:
    if not journal.writes:
        return {}
    return {"checkpoint": checkpoint.save({"model": model.state_dict()}, journal.folder / "checkpoint.pt")}
