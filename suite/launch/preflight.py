"""Everything the stages will need, checked before any of them runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from suite.data import datasets, verify
from suite.data.complete import check_data
from suite.launch.user_files_check import check_user_files
from suite.networks import build, checkpoint_files
from suite.networks.network_check import check_networks
from suite.recipe import Dataset, Network, Pretrained, Recipe, Stage, plan
from suite.recipe.errors import SuiteError, no_checkpoint
from suite.recipe.method import Step
from suite.recipe.planning import float_stage_of
from suite.recipe.settings import NETWORKS
from suite.recipe.words import counted
from suite.record import files, lease
from suite.record.files import Folders
from suite.run.pipeline import steps_of
from suite.train.optimizer import check_optimizer
from suite.train.sync_batch_norm import check_synchronizes


def check(
    stages: Sequence[Stage],
    folders: Folders,
    most_ranks: int,
    download: bool,
    report: Callable[[int, int], None] | None = None,
    on_gpu: bool | None = None,
) -> None:
    """Check all that the stages will need before any of them runs, of which one gets up to `most_ranks` ranks.

    `on_gpu` is whether they will run on GPUs; by default as here. `report` gets (files checked, files in all) of a
    data set of many files. Raises SuiteError with the remedy.
    """
    folders.runs.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        _check_training(stage, most_ranks, torch.cuda.is_available() if on_gpu is None else on_gpu)
    for stage in plan(stages):
        for step in stage.method.steps() if isinstance(stage, Recipe) else ():
            step.check()
    check_networks(stages)
    check_methods(stages)
    _check_over_ranks(stages)
    check_checkpoints(stages)
    for dataset in {float_stage_of(stage).dataset for stage in plan(stages)}:
        if download:
            datasets.download(dataset, folders.data)
        if datasets.in_files(dataset, folders.data):
            verify.check(folders.data, report, dataset)
    check_data(stages, folders.data)
    check_user_files(stages, folders)
    _check_space(folders.runs, stages)


def _check_training(stage: Stage, most_ranks: int, on_gpu: bool) -> None:
    """Raise SuiteError where a stage has more ranks than it gets, or a training that cannot be done there."""
    if stage.world_size > most_ranks:
        raise SuiteError(
            f"{stage.name} is shared by {counted(stage.world_size, 'rank')}, and here one run has up to {most_ranks}; "
            f"use --on torchrun on a machine of {counted(stage.world_size, 'GPU')}, --gpus-per-run {most_ranks} to "
            f"train it with fewer, or choose others with --only"
        )
    if not stage.trains_by:
        return
    check_optimizer(stage.trains_by)
    precision = stage.trains_by.precision
    if precision.level != "O0" and precision.dtype == "float16" and not on_gpu:
        raise SuiteError(
            f"{stage.name} trains in float16, which a CPU does some 30 times slower than bfloat16; use "
            f'Precision("O2", "bfloat16"), or a GPU'
        )


def check_checkpoints(stages: Sequence[Stage]) -> None:
    """Raise SuiteError unless every checkpoint that the stages start from is there, has its checksum and fits its
    network."""
    for stage in plan(stages):
        if not isinstance(stage, Pretrained):
            continue
        file = Path(stage.file)
        if not file.is_file():
            raise no_checkpoint(file)
        found = files.sha256(file)
        if found != stage.sha256:
            raise SuiteError(
                f"{file} has sha256 {found[:16]}, not {stage.sha256[:16]} as the sweep names; it is another file or "
                f"damaged: put the right one there, or name the checksum of this one"
            )
        checkpoint_files.load_weights(stage.network, file)


def check_methods(stages: Sequence[Stage]) -> None:
    """Raise SuiteError for the first recipe whose steps cannot be applied to its network, which fits its data set.

    The suite's own networks take every step, and are asked about layers that are named alone.
    """
    asked = set[tuple[Network, Dataset, Step]]()
    models: dict[Network, nn.Module] = {}
    for stage in plan(stages):
        if not isinstance(stage, Recipe):
            continue
        network, dataset = stage.start.network, stage.start.dataset
        for step in steps_of(stage):
            known = network.name in NETWORKS and not step.names_layers
            if known or (network, dataset, step) in asked:
                continue
            asked.add((network, dataset, step))
            with torch.random.fork_rng(devices=[]):
                model = models.get(network) or models.setdefault(network, build(network).eval())
                try:
                    step.check_network(model, torch.zeros(2, dataset.channels, dataset.size, dataset.size))
                except SuiteError as error:
                    raise SuiteError(f"{stage.name}, on {network.name}: {error}") from error


def _check_over_ranks(stages: Sequence[Stage]) -> None:
    """Raise SuiteError for a network whose BatchNorm cannot normalize by the images of all ranks, where it should."""
    shared = [s for s in plan(stages) if s.trains_by and s.world_size > 1 and s.trains_by.sync_batch_norm]
    for network in {float_stage_of(stage).network for stage in shared}:
        if network.name not in NETWORKS:
            with torch.random.fork_rng(devices=[]):
                check_synchronizes(build(network))


def check_idle(stages: Sequence[Stage], folders: Folders) -> None:
    """Raise SuiteError where a process of this machine runs one of the stages already."""
    for stage in plan(stages):
        if lease.locked(folders.runs / stage.key):
            raise SuiteError(
                f"{stage.name} ({stage.key}) is being run by {lease.holder(folders.runs / stage.key)}; "
                f"wait for it, or stop it first"
            )


def _check_space(runs: Path, stages: Sequence[Stage]) -> None:
    trained = sum(bool(stage.trains_by) for stage in stages)
    wanted = (
        20e6
        + 0.1e6 * len(stages)
        + 700e6 * trained * any("resnet50" in str(s.params["model"]) for s in stages)
        + 9e6 * trained
    )
    free = shutil.disk_usage(runs).free
    if free < wanted:
        raise SuiteError(
            f"{runs} has {free / 1e6:.0f} MB free, the sweep may need {wanted / 1e6:.0f} MB; free some space or "
            f"choose another folder with --runs"
        )
