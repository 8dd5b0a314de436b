"""Scores of what rounding costs are those of their definitions, on networks where these can be computed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from fakes.mixed import LAYERS, Keeping, images, tied
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from suite.methods.mse import Mse
from suite.quantizers.layer_sizes import LayerSize, layer_sizes, totals
from suite.quantizers.layers import bake
from suite.recipe import Calibration
from suite.run.pipeline import quantized
from suite.sensitivity.correlation import correlations, spearman
from suite.sensitivity.costs import Cost, Rounded, costs, evaluated, with_hessian, with_truth
from suite.sensitivity.hessian import traces
from suite.steps import MeasureSensitivity

CALIBRATION = Calibration(16, 8)


def rounded(network: nn.Module, names: tuple[str, ...], *widths: int) -> Rounded:
    """By `mse`, calibrated on all images."""
    x, _ = images()
    made = {}
    for bits in widths:
        insert, ranges, _ = Mse(bits, bits, feed=CALIBRATION).steps()
        made[bits] = bake(quantized([insert, ranges], Keeping(network, x)))
    return Rounded(copy.deepcopy(network), made, names)


def of(found: list[Cost], *place: Any) -> Cost:
    return next(cost for cost in found if (cost.layer, cost.tensor, cost.bits) == place)


def batches() -> list[tuple[Tensor, Tensor]]:
    x, labels = images()
    return [(x[:8], labels[:8]), (x[8:], labels[8:])]


def test_noise_and_gradient_score_are_those_of_their_definitions() -> None:
    network = tied()
    bank = rounded(network, LAYERS, 3)
    found = costs(bank, batches())
    (x, labels), seen, generator = images(), {}, torch.Generator().manual_seed(0)
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda module, args, y, name=name: seen.__setitem__(name, (args[0].clone(), y.clone(), y))
        )
        for name in ("left", "linear")
    ]
    logits = network(x)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    signs = [torch.randint(0, 2, (8, 10), generator=generator) * 2 - 1 for _ in (0, 1)]
    for hook in hooks:
        hook.remove()
    for name in ("left", "linear"):
        given, y, tensor = seen[name]
        slope = torch.autograd.grad(loss, tensor, retain_graph=True)[0]
        by_logits = torch.autograd.grad((logits * torch.cat(signs)).sum(), tensor, retain_graph=True)[0]
        held: Any = bank.at[3].get_submodule(name)
        wrong = {"weight": held.layer(given), "input": network.get_submodule(name)(held.input(given))}
        for kind, output in wrong.items():
            error = (output - y).detach()
            cost = of(found, name, kind, 3)
            assert cost.noise == pytest.approx(
                float(error.square().sum() / y.square().sum().detach()), rel=1e-4
            )
            assert cost.gradient == pytest.approx(float((error * slope).square().sum() / len(x)), rel=1e-3)
            assert cost.logits == pytest.approx(float((error * by_logits).square().sum() / len(x)), rel=1e-3)
        error = held.layer.weight - network.get_submodule(name).weight
        assert of(found, name, "weight", 3).error == pytest.approx(
            float(error.detach().square().sum()), rel=1e-5
        )


def test_more_bits_make_less_noise_and_the_network_is_left_as_it_was() -> None:
    network = tied()
    bank = rounded(network, LAYERS, 2, 4, 8)
    before = copy.deepcopy(bank.network.state_dict())
    found = costs(bank, batches())
    assert len(found) == len(LAYERS) * 2 * 3
    for name in LAYERS:
        for tensor in ("weight", "input"):
            noise = [of(found, name, tensor, bits).noise for bits in (2, 4, 8)]
            assert noise[0] > noise[1] > noise[2] > 0
    assert all(torch.equal(before[key], value) for key, value in bank.network.state_dict().items())
    assert [type(module) for module in bank.network.modules()] == [
        type(module) for module in network.modules()
    ]


@pytest.mark.parametrize("labelled", [True, False])
def test_batches_that_are_too_large_for_the_memory_are_computed_in_parts(
    monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    """A ResNet-50 took 13 GB for 64 images."""
    bank = rounded(tied(), LAYERS, 3)
    given = batches() if labelled else [(x, torch.empty(0, dtype=torch.int64)) for x, _ in batches()]
    whole = costs(bank, given, labelled)
    monkeypatch.setattr("suite.sensitivity.costs.HELD", 1)
    sizes: list[int] = []
    bank.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    one_by_one = costs(bank, given, labelled)
    assert set(sizes) == {1}
    for one, other in zip(one_by_one, whole, strict=True):
        assert (one.layer, one.tensor, one.bits) == (other.layer, other.tensor, other.bits)
        for name in ("noise", "logits", "error", *(["gradient"] if labelled else [])):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-5)


def test_the_hessian_score_is_the_mean_of_the_diagonal_times_the_squared_error() -> None:
    bank = rounded(tied(), LAYERS, 3)
    probed = traces(bank.network, LAYERS, (x for x, _ in batches()), probes=2)
    for cost in with_hessian(costs(bank, batches()), probed):
        trace = probed[cost.layer, cost.tensor]
        assert cost.hessian == pytest.approx(trace.trace / trace.size * cost.error)
        assert cost.hessian_standard_error == pytest.approx(trace.standard_error / trace.size * cost.error)


def test_the_truth_is_the_network_with_that_one_tensor_rounded_and_with_all_but_it() -> None:
    network = tied()
    bank = rounded(network, LAYERS, 2)
    found = with_truth(bank, costs(bank, batches()), batches())
    held: Any = bank.at[2].get_submodule("left")
    alone = copy.deepcopy(network)
    alone.left.weight.data.copy_(held.layer.weight)  # type: ignore[union-attr,operator]
    cost = of(found, "left", "weight", 2)
    assert cost.loss_alone == pytest.approx(evaluated(alone, batches()).loss, rel=1e-6)
    rest: Any = copy.deepcopy(bank.at[2])
    rest.left.layer.weight.data.copy_(network.left.weight)  # type: ignore[union-attr]
    assert cost.loss_all_but == pytest.approx(evaluated(rest, batches()).loss, rel=1e-6)
    rest = copy.deepcopy(bank.at[2])
    rest.left.input = None
    assert of(found, "left", "input", 2).loss_all_but == pytest.approx(
        evaluated(rest, batches()).loss, rel=1e-6
    )


def test_what_was_evaluated_before_is_not_evaluated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = rounded(tied(), LAYERS, 2)
    found, known = costs(bank, batches()), dict[str, dict[str, float]]()
    whole = with_truth(bank, found, batches(), known=known)
    assert len(known) == len(found) == 8
    del known["left weight 2"]
    counted: list[object] = []
    monkeypatch.setattr(
        "suite.sensitivity.costs.evaluated", lambda *given: counted.append(given) or evaluated(*given)
    )
    assert with_truth(bank, found, batches(), known=known) == whole
    assert len(counted) == 2, "alone, and all but it"


def test_sizes_are_counted_and_add_up() -> None:
    sizes = layer_sizes(tied(), LAYERS, images(2)[0])
    assert sizes == {
        "conv": LayerSize(108, 108 * 64),
        "left": LayerSize(144, 144 * 64),
        "right": LayerSize(16, 16 * 64),
        "linear": LayerSize(40, 40),
    }
    two = {"conv": LayerSize(10, 100), "linear": LayerSize(30, 30)}
    assert totals(two, {"conv": (8, 4), "linear": (2, 32)}) == {
        "mean_weight_bits": (80 + 60) / 40,
        "mean_weight_bits_by_layer": 5.0,
        "bops": 100 * 32 + 30 * 64,
        "weights_mb": 140 / 8e6,
    }


def test_rank_correlation_is_scipys_and_its_interval_holds_it() -> None:
    generator = np.random.default_rng(3)
    one = generator.normal(size=20)
    other = one + generator.normal(size=20)
    rho, low, high = spearman(one, other)
    assert rho == pytest.approx(spearmanr(one, other).statistic, abs=1e-4) and low < rho < high
    ties = np.array([1.0, 1.0, 2.0, 3.0, 3.0]), np.array([2.0, 1.0, 2.0, 5.0, 4.0])
    assert spearman(*ties)[0] == pytest.approx(spearmanr(*ties).statistic, abs=1e-4)


def test_a_score_that_ranks_as_the_truth_has_rho_one_whichever_way_the_truth_was_measured() -> None:
    found = [
        Cost(f"{n}", "weight", 4, noise=n, gradient=-n, loss_alone=1 + n, loss_all_but=9 - n)
        for n in range(6)
    ]
    shown = {(one.score, one.truth): one.rho for one in correlations(found)}
    assert shown == {
        ("noise", "loss_alone"): 1.0,
        ("noise", "loss_all_but"): 1.0,
        ("gradient", "loss_alone"): -1.0,
        ("gradient", "loss_all_but"): -1.0,
    }
    assert not correlations(found[:3]), "too few layers say nothing"


def test_the_step_keeps_all_of_it_and_leaves_the_model_alone() -> None:
    x, labels = images()
    feed = Keeping(tied(), x, labels)
    insert, ranges, _ = Mse(4, 4, feed=CALIBRATION).steps()
    inserted = quantized([insert], Keeping(tied(), x, labels))
    step = MeasureSensitivity((2, 4), ranges=(ranges,), images=CALIBRATION, probes=1)
    model = step.apply(inserted, feed)
    assert model is inserted
    kept = feed.kept["sensitivity.json"]
    assert kept["images"] == 16 and set(kept["all_rounded"]) == {"2", "4"}
    assert len(kept["costs"]) == 16 and all(None not in cost.values() for cost in kept["costs"])
    assert [layer["name"] for layer in kept["layers"]] == list(LAYERS)
    assert {one["score"] for one in kept["correlations"]} == {"noise", "logits", "gradient", "hessian"}
