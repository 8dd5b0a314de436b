"""The main path: one stage on this rank. It leaves runs/KEY/, and nothing else knows how."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import torch
from torch import nn

from suite import networks
from suite.ranks import Ranks
from suite.recipe import FORMAT, Pretrained, Recipe, Stage, Training, user_files
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.recipe.sources import sources
from suite.record import files, system_metrics
from suite.record.failure import report_failure
from suite.record.files import Folders
from suite.record.journal import Journal, read_outcome
from suite.record.lease import ReplacedError, lock
from suite.record.provenance import provenance
from suite.run import checkpoint, failures, layer_report
from suite.run.attempt import Attempt, InterruptedRunError
from suite.run.feed import RunFeed
from suite.run.float_stage import load_float
from suite.run.pipeline import quantized, steps_of
from suite.run.training import Confusion, eager_because, score, train
from suite.stop import Stop
from suite.train.bfloat16 import kernels


def run(stage: Stage, ranks: Ranks, folders: Folders, stop: Stop | None = None) -> None:
    """Do `stage` unless it is done, going on from what an earlier attempt saved. What it needs must be done.

    Raises what went wrong, after recording it, and InterruptedRunError when `stop` asked and the state is saved.
    """
    ranks.check(stage.world_size)
    folder = folders.runs / stage.key
    if not ranks.writes:
        if ranks.agree(False):
            _work_as_other_rank(Attempt(stage, ranks, folders, stop or Stop(), Journal(folder, writes=False)))
        return
    with lock(folder) as lease:
        if not ranks.agree(read_outcome(folder) is None):
            return
        journal = Journal(folder, lease=lease)
        try:
            _work_and_record(Attempt(stage, ranks, folders, stop or Stop(), journal))
        finally:
            journal.close()


def _work_and_record(attempt: Attempt) -> None:
    """Of rank 0."""
    stage, journal, device = attempt.stage, attempt.journal, attempt.ranks.device
    began = time.monotonic()
    facts = {**provenance(device), "bfloat16": kernels(device), "eager": eager_because(device)}
    facts["sources"] = sources(stage)
    attempt.watch_others()
    try:
        files.write_json({**_description(stage), **facts}, journal.folder / "stage.json")
        user_files.keep(to_json(stage), journal.folder)
        where = {name: facts[name] for name in ("host", "pid", "device", "bfloat16", "commit", "sources")}
        journal.write("started", **where, job=os.environ.get("SUITE_JOB", ""))
        with system_metrics.sampled(journal, attempt.ranks):
            outcome, confusion = _result(attempt)
        with failures.survived("confusion.json"):
            journal.artifact("confusion.json", layer_report.encoded(confusion()))
        journal.finish(stage.key, **outcome, seconds=time.monotonic() - began)
        for file in checkpoint.resumable(journal.folder):
            file.unlink()
    except InterruptedRunError as asked:
        journal.write("interrupted", signal=attempt.stop.asked_by, reason=str(asked))
        raise
    except ReplacedError:
        raise
    except Exception as error:
        attempt.record_failure(failures.explained(error, journal.folder, attempt.ranks.world_size))
        raise
    finally:
        attempt.ended.set()


def _work_as_other_rank(attempt: Attempt) -> None:
    """Report to rank 0 what goes wrong here."""
    attempt.watch_others()
    try:
        with system_metrics.sampled(attempt.journal, attempt.ranks):
            _result(attempt)
    except InterruptedRunError:
        raise
    except Exception as error:
        report_failure(attempt.journal.folder, attempt.ranks.rank, failures.of(error))
        raise
    finally:
        attempt.ended.set()


def _result(attempt: Attempt) -> tuple[dict[str, Any], Confusion]:
    """What the outcome holds of it, and the confusion of classes."""
    match attempt.stage:
        case Training() as stage:
            torch.manual_seed(stage.seed)
            model = attempt.place(networks.build(stage.network))
            train(attempt, model, stage, stage.sgd, stage.seed, attempt.saved())
            values, confusion = score(attempt, model, stage, stage.sgd.epochs)
            return {**values, **_save(attempt, model)}, confusion
        case Pretrained() as stage:
            return score(attempt, attempt.place(load_float(stage, attempt.folders)), stage, 0)
        case Recipe() as stage:
            return _quantized(attempt, stage)
    raise SuiteError(f"{type(attempt.stage).__name__} is no stage that can run")


def _quantized(attempt: Attempt, recipe: Recipe) -> tuple[dict[str, Any], Confusion]:
    steps = steps_of(recipe)
    feed = RunFeed(attempt, recipe, steps)
    model = quantized(steps, feed, feed.start_network())
    values, confusion = score(attempt, model, recipe.start, feed.epochs)
    if attempt.start_top1 is not None:
        values["start_top1"] = attempt.start_top1
    outcome = values | (_save(attempt, model, feed.weights) if feed.epochs else {})
    attempt.last_step_at = math.inf
    if attempt.journal.writes:  # last: the report may move the model's ranges
        if feed.learned:
            with failures.survived("what was learned"):
                learned: dict[str, Any] = {str(step): state for step, state in feed.learned.items()}
                checkpoint.keep(learned, attempt.journal.folder, checkpoint.LEARNED)
        _report_layers(attempt, recipe, feed, model)
    return outcome, confusion


def _report_layers(attempt: Attempt, recipe: Recipe, feed: RunFeed, model: nn.Module) -> None:
    batch = None
    with failures.survived("the inputs of the layers"):
        batch = layer_report.batch(attempt.images(recipe.start.dataset, "test"))
    with failures.survived("layers.json"):
        weights = feed.weights or layer_report.float_weights(feed.reference, model)
        record = layer_report.layers(feed.reference, weights, model, batch, feed.changes.layers)
        attempt.journal.artifact("layers.json", layer_report.encoded(record))


def _save(attempt: Attempt, model: nn.Module, weights: layer_report.Weights | None = None) -> dict[str, Any]:
    """The trained model and, of a recipe, its `weights` as they were before they were rounded for good."""
    if not attempt.journal.writes:
        return {}
    file = attempt.journal.folder / "checkpoint.pt"
    state: dict[str, Any] = {"model": model.state_dict()}
    if weights:
        state["trained"] = {layer: weight for layer, weight in weights.items() if weight is not None}
    return {"checkpoint": checkpoint.save(state, file)}


def _description(stage: Stage) -> dict[str, Any]:
    record = {"format": FORMAT, "key": stage.key, "name": stage.name, "kind": type(stage).__name__}
    return {**record, "params": stage.params, "stage": to_json(stage)}
