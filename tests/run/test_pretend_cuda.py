"""Every kind of stage on a pretended GPU: all tensors on it, resumed to the same bits, no wait in a training step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from fakes.methods import LIKE, LIKE_ANOTHER
from fakes.pretend_cuda import pretend_cuda
from fakes.pretended_gpu import VIEWS, DeviceError, Gpu
from fakes.trainings import TINY, TINY_IMAGES

import suite.networks.torchvision_import  # noqa: F401  (before torch seems to have CUDA)
from suite import networks
from suite.data import datasets
from suite.data.images import Images
from suite.launch import verify_resume
from suite.methods import find
from suite.methods.amax import Amax
from suite.methods.histogram import Histogram
from suite.methods.linear import Linear
from suite.methods.mse import Mse
from suite.methods.percentile import Percentile
from suite.methods.qat_symmetric import QatSymmetric
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Stage, Training
from suite.record import provenance
from suite.record.files import Folders
from suite.run.attempt import Attempt, InterruptedRunError
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.run.stage import run
from suite.stop import Stop
from suite.train.fit import fit

FEW = Calibration(images=64, batch=32)


def sgd(level: str = "O0", dtype: str = "float16") -> Sgd:
    return Sgd(1, 24, 0.05, pad=1, precision=Precision(level, dtype))  # type: ignore[arg-type]


def training(*precision: str) -> Training:
    """Of three steps; a float16 convolution takes a CPU long, so that the network is tiny."""
    return Training(TINY, TINY_IMAGES, sgd(*precision))


def small(kind: Any, **changed: Any) -> Any:
    """A method with few images or steps, whatever its fields for them are called."""
    for field in fields(kind):
        usual = getattr(kind(), field.name)
        if isinstance(usual, Calibration):
            changed.setdefault(field.name, FEW)
        elif isinstance(usual, Sgd):
            changed.setdefault(field.name, sgd())
        elif field.name in ("iterations", "batch"):
            changed.setdefault(field.name, 4)
    return kind(**changed)


def stages() -> list[Stage]:
    """Trainings in each precision, every method there is, and what a recipe adds."""
    start = training()
    found: list[Stage] = [training(f"O{n}", half) for n in (1, 2, 3) for half in ("float16", "bfloat16")]
    methods = [small(kind) for kind in find().values()]
    methods += [small(QatSymmetric, feed=sgd("O2")), small(QatSymmetric, feed=sgd("O1", "bfloat16"))]
    methods += [
        small(QatSymmetric, **{how: True}) for how in ("ranges_move", "running_extreme", "from_scratch")
    ]
    methods += [
        Amax(4, 4, feed=FEW),
        Histogram(4, 4, train_mode=True, search=False, bins_are_bits=True, feed=FEW),
        Percentile(4, 4, train_mode=True, feed=FEW),
        Linear(16, input_cast=False, weights_evaluated=False, dtype="float16"),
        Linear(8, weights_evaluated=False, batch_statistics=True),
        Mse(4, 4, search_weights=False, feed=FEW),
    ]
    found += [Recipe(start, method) for method in methods]
    found += [Recipe(start, Mse(4, 4, feed=FEW), batch_norm=how) for how in ("folded", "re-estimated")]  # type: ignore[arg-type]
    return [start, *found, Recipe(start, Amax(4, 4, feed=FEW), edge_bits=8)]


STAGES = {stage.key: stage for stage in stages()}


def each() -> list[Any]:
    """The keys of all; of the methods that reconstruct, the slowest here, one is run in `make test`."""
    found = []
    for key, stage in STAGES.items():
        as_adaround = isinstance(stage, Recipe) and stage.method.name in LIKE["adaround"]
        marks = [pytest.mark.long] * as_adaround
        found.append(pytest.param(key, marks=marks, id=f"{stage.name}-{key[:4]}"))
    return found


def trained() -> list[Any]:
    """The keys of those that train; the first of each kind is stopped and resumed in `make test`."""
    found, kinds = [], set()
    for key, stage in STAGES.items():
        if stage.trains_by:
            kind = stage.method.name if isinstance(stage, Recipe) else stage.trains_by.precision.level
            marks = [pytest.mark.long] * (kind in kinds or kind in LIKE_ANOTHER)
            found.append(pytest.param(key, marks=marks, id=f"{stage.name}-{key[:4]}"))
            kinds.add(kind)
    return found


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Without torch.compile, which knows that there is no GPU."""
    with mock.patch.dict(os.environ, {"SUITE_COMPILE": "0"}):
        yield
        forget()


def forget() -> None:
    """What was kept for a CPU, or for another pretended GPU, is loaded anew."""
    for kept in (datasets.load, provenance.provenance):
        kept.cache_clear()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("pretended")
    return Folders(folder / "runs", folder)


def done(stage: Stage, folders: Folders, stop_after: int = 0) -> Gpu:
    """Run it and what it needs on a pretended GPU; with `stop_after`, stopped after so many steps and resumed."""
    for needed in stage.needs:
        done(needed, folders)
    forget()
    with pretend_cuda() as gpu:
        ranks = Ranks(device=gpu.device)
        if stop_after:
            usual, count = Attempt.save_or_stop, iter(range(1, 10**9))

            def stopping(self: Attempt, *words: Any) -> None:
                self.stop.asked_by = "SIGTERM" if next(count) == stop_after else ""
                usual(self, *words)

            with mock.patch.object(Attempt, "save_or_stop", stopping), pytest.raises(InterruptedRunError):
                run(stage, ranks, folders, Stop())
        run(stage, ranks, folders, Stop())
    return gpu


@pytest.mark.parametrize("key", each())
def test_no_tensor_of_a_stage_is_on_the_wrong_device(key: str, folders: Folders) -> None:
    assert not done(STAGES[key], folders).refused
    assert (folders.runs / key / "outcome.json").exists()


@pytest.mark.parametrize("key", trained())
def test_what_was_stopped_on_a_gpu_goes_on_to_the_same_bits(
    key: str, folders: Folders, tmp_path: Path
) -> None:
    stage = STAGES[key]
    done(stage, folders)
    again = Folders(tmp_path, tmp_path)
    for needed in stage.needs:
        (tmp_path / needed.key).symlink_to(folders.runs / needed.key)
    done(stage, again, stop_after=2)
    assert not verify_resume.compare(folders.runs / key, tmp_path / key)


@pytest.mark.parametrize(("level", "is_qat"), [("O0", False), ("O2", False), ("O2", True)])
def test_a_step_of_a_training_makes_the_host_wait_for_nothing(level: str, is_qat: bool) -> None:
    with pretend_cuda() as gpu:
        model = networks.build(Network("resnet20")).to(gpu.device)
        if is_qat:
            method = QatSymmetric()
            model = quantized(method.steps()[:1], InMemoryFeed(model))
        pixels, labels = (
            torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8),
            torch.randint(0, 10, (24,)),
        )
        images = Images(pixels.to(gpu.device), labels.to(gpu.device), Dataset("cifar10", size=16))
        steps = fit(model, images, Sgd(2, 4, 0.01, precision=Precision(level)), 0, Ranks(device=gpu.device))  # type: ignore[arg-type]
        for _ in range(2):
            next(steps)
        gpu.waits.clear()
        next(steps)
        assert not gpu.waits and any(name.split(".")[1] not in VIEWS for name in gpu.launches)


def test_the_pretended_gpu_refuses_what_cuda_refuses_and_counts_what_waits() -> None:
    with pretend_cuda() as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        with pytest.raises(DeviceError, match="tensors on cuda:0 and on cpu"):
            there + here
        with pytest.raises(DeviceError, match="can't convert cuda:0"):
            there.numpy()
        assert there.is_cuda and str((there * 2).device) == "cuda:0" and not gpu.waits
        assert (there + torch.tensor(1.0)).sum().item() == 6 and len(gpu.waits) == 1
