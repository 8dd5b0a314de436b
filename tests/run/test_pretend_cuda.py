"""Every kind of stage on a pretended GPU: all tensors on it, resumed to the same bits, no wait in a training step."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from fakes.methods import LIKE, LIKE_ANOTHER
from fakes.pretend_cuda import pretend_cuda
from fakes.pretended_gpu import DeviceError, Gpu
from fakes.trainings import TINY, TINY_IMAGES

import suite.networks.torchvision_import  # noqa: F401  (before torch seems to have CUDA)
from suite.data import datasets
from suite.launch import verify_resume
from suite.methods import find
from suite.methods.amax import Amax
from suite.methods.histogram import Histogram
from suite.methods.linear import Linear
from suite.methods.lsq import Lsq
from suite.methods.mse import Mse
from suite.methods.percentile import Percentile
from suite.methods.qat_symmetric import QatSymmetric
from suite.pytorch_quantization.nn import QuantConv2d
from suite.ranks import Ranks
from suite.recipe import Calibration, Damping, Freezing, Precision, Recipe, Sgd, Stage, Training
from suite.reconstruction.unit_learning import Learning
from suite.record import provenance
from suite.record.files import Folders
from suite.run import training as trains
from suite.run.attempt import Attempt, InterruptedRunError
from suite.run.stage import run
from suite.stop import Stop

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
    methods += [small(Lsq, damping=Damping(), feed=sgd("O2")), small(Lsq, freezing=Freezing(max_bits=8))]
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


def watched(usual: Callable[..., Iterator[Any]], gpu: Gpu) -> Callable[..., Iterator[Any]]:
    """The same steps of a training or of learned rounding, of which the second and the third make the host wait for
    nothing; the first makes what the others use, and what is read now and then is read in it and in the last."""

    def steps(*words: Any, **named: Any) -> Iterator[Any]:
        before = Counter(gpu.waits)
        for number, step in enumerate(usual(*words, **named), start=1):
            assert number not in (2, 3) or not gpu.waits - before, (
                f"step {number} waits: {gpu.waits - before}"
            )
            yield step
            before = Counter(gpu.waits)

    return steps


def done(stage: Stage, folders: Folders, stop_after: int = 0) -> Gpu:
    """Run it and what it needs on a pretended GPU; with `stop_after`, stopped after so many steps and resumed."""
    for needed in stage.needs:
        done(needed, folders)
    forget()
    with (
        pretend_cuda() as gpu,
        mock.patch.object(trains, "fit", watched(trains.fit, gpu)),
        mock.patch.object(Learning, "iterations", watched(Learning.iterations, gpu)),
    ):
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
def test_no_tensor_of_a_stage_is_on_the_wrong_device_and_no_step_waits(key: str, folders: Folders) -> None:
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


def test_nvidias_interface_waits_for_nothing_once_its_ranges_are_fixed() -> None:
    with pretend_cuda() as gpu:
        layer = QuantConv2d(3, 4, 3).to(gpu.device)
        layer.input_quantizer.amax, layer.weight_quantizer.amax = 3.0, 0.2
        x = torch.randn(2, 3, 8, 8).to(gpu.device)
        layer(x)
        gpu.waits.clear()
        layer(x)
        assert not gpu.waits


def test_the_pretended_gpu_refuses_what_cuda_refuses_and_counts_what_waits() -> None:
    with pretend_cuda() as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        with pytest.raises(DeviceError, match="tensors on cuda:0 and on cpu"):
            there + here
        with pytest.raises(DeviceError, match="can't convert cuda:0"):
            there.numpy()
        assert there.is_cuda and str((there * 2).device) == "cuda:0" and not gpu.waits
        assert (there + torch.tensor(1.0)).sum().item() == 6 and len(gpu.waits) == 1
        with pytest.raises(DeviceError, match="over several dtypes"):
            torch._foreach_copy_([there.half(), there], [there, there])
        with pytest.raises(AssertionError, match="step 2 waits"):
            list(watched(lambda: (there.sum().item() for _ in range(3)), gpu)())
