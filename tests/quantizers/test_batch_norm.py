"""BatchNorm, and the widths of the first and the last layer: declared, done so, refused where they cannot be."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.ranks import together
from fakes.trainings import QUICK
from torch import Tensor, nn

import suite
from suite import networks
from suite.data.images import Images
from suite.methods.amax import Amax
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.entropy import Entropy
from suite.methods.histogram import Histogram
from suite.methods.int_cast import IntCast
from suite.methods.k_sigma import KSigma
from suite.methods.linear import Linear
from suite.methods.mse import Mse
from suite.methods.percentile import Percentile
from suite.methods.qat_symmetric import QatSymmetric
from suite.methods.scheme import Scheme
from suite.quantizers import batch_norm
from suite.quantizers.layers import LAYERS, Quantized, stored_parameters
from suite.quantizers.model_size import size_mb
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Method, Network, Pretrained, Recipe, Sgd, Training
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import read_outcome
from suite.run.float_stage import crops
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized, steps_of
from suite.run.stage import run
from suite.steps import ReestimateBatchNorm
from suite.sweeps.treatments import sweep

START = Training(Network("resnet20", "A"), Dataset("digits"), Sgd(epochs=1, batch=32, lr=0.1))


def network(name: str = "resnet20", shortcut: str = "A", classes: int = 10) -> nn.Module:
    """One whose BatchNorm is far from doing nothing."""
    torch.manual_seed(0)
    model = networks.build(Network(name, shortcut, classes))  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def batches(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 32, 32, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "resnet50_imagenet"])
def test_a_folded_network_has_no_batch_norm_and_computes_the_same(name: str) -> None:
    model = network(name, "A" if name == "resnet20" else "B").double()
    before, x = copy.deepcopy(model.state_dict()), batches(1)[0][:2].double()
    folded = batch_norm.fold(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        expected, found = model(x), folded(x)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert size_mb(folded) < size_mb(model)


def test_a_frozen_batch_norm_keeps_its_statistics_while_its_weights_train() -> None:
    model = batch_norm.freeze(network()).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(batches(1)[0]).square().mean().backward()
    optimizer.step()
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("running" in name or "tracked" in name for name in moved)
    assert "bn1.weight" in moved and "bn1.bias" in moved and "conv1.weight" in moved


def test_statistics_estimated_again_are_those_of_the_quantized_network() -> None:
    model = suite.quantize(network(), Amax(4, 4, feed=Calibration(len(batches(1)[0]))), batches(1)[0])
    seen: list[Tensor] = []
    hook = model.get_submodule("conv1").register_forward_hook(lambda *call: seen.append(call[-1]))
    before = copy.deepcopy(model.state_dict())
    batch_norm.estimate_again(model, batches())
    hook.remove()
    norm = model.get_submodule("bn1")
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
    assert len(seen) == 3 and not model.training
    assert torch.allclose(norm.running_mean, mean, atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(norm.running_var, variance, rtol=1e-5)  # type: ignore[arg-type]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved and all("bn" in name for name in moved)


LAYERWISE: list[Method] = [Amax(4, 4), Histogram(4, 4), Percentile(4, 4), Mse(4, 4), Entropy(4, 4)]


@pytest.mark.parametrize("method", LAYERWISE, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("bits", [8, 32])
def test_the_first_and_the_last_layer_have_a_width_of_their_own(method: Method, bits: int | None) -> None:
    x = batches(1)[0]
    method = dataclasses.replace(method, feed=Calibration(len(x)))  # type: ignore[type-var]
    recipe = Recipe(START, method, edge_bits=bits)
    model = quantized(steps_of(recipe), InMemoryFeed(network(), x))
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    noted = [stored_parameters(layer).get("weight") for layer in layers]
    stored = [one and one.bits for one in noted]
    first_last = bits if bits == 8 else None
    assert stored == [first_last, *[4] * (len(stored) - 2), first_last]
    held = [module for module in model.modules() if isinstance(module, Quantized)]
    inputs = [module.input.grid.bits for module in held if module.input and isinstance(module.layer, LAYERS)]
    assert inputs == ([8, *[4] * 18, 8] if first_last else [4] * 18)


@pytest.mark.parametrize(
    ("method", "treatment", "message"),
    [
        (Amax(), {"batch_norm": "lost"}, "use one of kept, folded, frozen, re-estimated"),
        (BuiltinInt8(), {"batch_norm": "re-estimated"}, "not for builtin_int8, whose own is 'folded'"),
        (Histogram(train_mode=True), {"batch_norm": "folded"}, "whose own is 're-estimated'"),
        (IntCast(), {"batch_norm": "folded"}, "whose own is 'quantized'"),
        (Linear(), {"batch_norm": "folded"}, "whose own is 'quantized'"),
        (Linear(batch_statistics=True), {"batch_norm": "folded"}, "whose own is 'of each batch'"),
        (Amax(), {"batch_norm": "frozen"}, "is for trainings; amax has none"),
        (QatSymmetric(from_scratch=True), {"batch_norm": "frozen"}, "from scratch has not"),
        (KSigma(), {"edge_bits": 8}, "not for k_sigma, which gives its layers their widths in its own way"),
        (QatSymmetric(), {"edge_bits": 8}, "not for qat_symmetric, which gives its layers"),
        (Amax(), {"edge_bits": 17}, "use a whole number from 2 to 16"),
    ],
)
def test_a_treatment_that_cannot_be_is_refused(
    method: Method, treatment: dict[str, Any], message: str
) -> None:
    with pytest.raises(SuiteError, match=message):
        Recipe(START, method, **treatment)


def test_each_row_states_what_becomes_of_batch_norm_and_of_the_first_and_the_last_layer() -> None:
    def stated(method: Method, **treatment: Any) -> tuple[Any, Any]:
        params = Recipe(START, method, **treatment).params
        return params["batch_norm"], params["edges"]

    assert stated(Amax()) == ("kept", "as the rest")
    assert stated(Amax(), batch_norm="folded", edge_bits=8) == ("folded", "8 bits")
    assert stated(Amax(), edge_bits=32) == ("kept", "float")
    assert stated(BuiltinInt8()) == ("folded", "as the rest")
    assert stated(Percentile(train_mode=True)) == ("re-estimated", "as the rest")
    assert stated(KSigma()) == ("kept", "last layer float")
    assert stated(QatSymmetric()) == ("trained", "first input and last layer float")


def test_a_treatment_changes_the_key_and_the_name_and_none_leaves_the_key_of_before() -> None:
    plain, folded = Recipe(START, KSigma()), Recipe(START, KSigma(), batch_norm="folded")
    assert plain.key == "2cc7d6d6e684eeb1" and folded.key != plain.key
    assert folded.name.startswith("k_sigma w5 BatchNorm folded seed 0 from ")
    first_last = dataclasses.replace(Recipe(START, Amax()), edge_bits=32)
    assert first_last.name.startswith("amax w8a8 edges float seed 0 from ")
    assert first_last.key != Recipe(START, Amax()).key


def test_every_treatment_runs_from_a_recipe(tmp_path: Path) -> None:
    folders, calibration = Folders(tmp_path, tmp_path), Calibration(images=64, batch=32)
    qat = QatSymmetric(4, 4, feed=dataclasses.replace(QUICK.sgd, lr=0.001))
    recipes = [
        Recipe(QUICK, Amax(4, 4, feed=calibration), batch_norm="folded"),
        Recipe(QUICK, Amax(4, 4, feed=calibration), batch_norm="re-estimated", edge_bits=8),
        Recipe(QUICK, Amax(4, 4), edge_bits=32),
        Recipe(QUICK, qat, batch_norm="frozen"),
        Recipe(QUICK, qat, batch_norm="folded"),
        Recipe(QUICK, qat, batch_norm="re-estimated"),
        Recipe(QUICK, KSigma(), batch_norm="folded"),
    ]
    run(QUICK, Ranks(), folders)
    for recipe in recipes:
        run(recipe, Ranks(), folders)
        outcome = read_outcome(tmp_path / recipe.key)
        assert outcome and outcome["loss"] is not None


def test_the_sweep_has_each_treatment_of_each_method_and_width_once() -> None:
    recipes = sweep()
    assert len({recipe.key for recipe in recipes}) == len(recipes) == 2 * (3 * 6 + 4)


def test_statistics_are_estimated_from_images_as_the_training_saw_them() -> None:
    """Shifted over a black border, as the training shifts them; whole where it does not."""
    white = Images(
        torch.full((64, 3, 32, 32), 255, dtype=torch.uint8), torch.arange(64) % 10, Dataset("cifar10")
    )
    calibration = Calibration(images=48, batch=32)
    for pad, black in ((4, True), (0, False)):
        start = dataclasses.replace(START, dataset=white.dataset, sgd=dataclasses.replace(START.sgd, pad=pad))
        stage = Recipe(start, Amax(4, 4, feed=calibration), batch_norm="re-estimated")
        seen = list(crops(stage, white, calibration))
        assert [len(x) for x in seen] == [32, 32]
        assert (torch.cat(seen) < 0).any().item() is black
    file = Pretrained(START.network, white.dataset, "weights.pt", "0" * 64)
    usual = Recipe(file, Amax(4, 4, feed=calibration), batch_norm="re-estimated")
    assert all((x < 0).any() for x in crops(usual, white, calibration)), (
        "somebody's network is taken to be trained as usual"
    )


def test_a_run_estimates_statistics_from_the_images_that_the_step_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from as many as the method calibrates on."""
    from suite.run import feed

    wanted, folders = Calibration(images=24, batch=12), Folders(tmp_path, tmp_path)
    seen: list[Tensor] = []
    monkeypatch.setattr(feed, "crops", lambda *given: seen.extend(crops(*given)) or iter(seen))
    run(QUICK, Ranks(), folders)
    scheme = Scheme(calibration=Calibration(images=32, batch=32), after=(ReestimateBatchNorm(wanted),))
    run(Recipe(QUICK, scheme), Ranks(), folders)
    assert [len(x) for x in seen] == [12, 12]


STOPPED = """
import os, signal, time
from pathlib import Path
import numpy as np
from suite.data import datasets
from suite.quantizers import batch_norm
from suite.run import attempt, feed, float_stage
from suite.run.stage import run
from suite.methods.qat_symmetric import QatSymmetric
from suite.ranks import from_environment
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training
from suite.record.files import Folders
from suite.stop import Stop

stop, ranks = Stop().listen(), from_environment()
pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
datasets.digits = lambda split: (pixels, np.arange(32) % 10)
sgd = Sgd(1, 32, 0.01, pad=1, flip=False, precision=Precision("O0"), world_size=2)
start = Training(Network("resnet20"), Dataset("digits", size=8), sgd)
stage = Recipe(start, QatSymmetric(4, 4, from_scratch=True, feed=sgd), batch_norm="re-estimated")

def crops(*given):
    for x in float_stage.crops(*given):
        attempt.STUCK_SECONDS = attempt.NOTICE_SECONDS = 0.1
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(1.5)  # as a slow batch, longer than a rank may wait for another
        attempt.STUCK_SECONDS = 30
        yield x

scored, own = [], batch_norm.estimate_again
feed.crops = crops
batch_norm.estimate_again = lambda *given: scored.append(own(*given)) or scored[0]
run(stage, ranks, Folders(Path("runs"), Path("data")), stop)
assert stop.asked_by == "SIGUSR2"
for buffer in scored[0].buffers():
    assert (ranks.each(buffer)[0] == buffer).all()
print(stage.key)
ranks.leave()
"""


def test_ranks_asked_to_stop_while_statistics_are_estimated_again_finish_together(tmp_path: Path) -> None:
    """The training is done and a few batches are left: to leave would lose more than to stay. No rank takes another
    that is busy with them for gone."""
    first, _ = together(2, STOPPED, tmp_path)
    outcome = read_outcome(tmp_path / "runs" / first.split()[-1])
    assert outcome and outcome["images"] == 32
