"""Damping and freezing: a square wave by hand, the penalty in closed form, and a training that goes on exactly."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from fakes import tiny
from fakes.learned import learning
from fakes.trainings import digits, small
from torch import Tensor, nn

from suite.learned.lsq import lsq
from suite.learned.quantizer import positive
from suite.methods.apot import Apot
from suite.methods.binary_relax import BinaryRelax
from suite.methods.dorefa import Dorefa
from suite.methods.ewgs import Ewgs
from suite.methods.lsq import LearnedMethod, Lsq
from suite.methods.lsq_plus import LsqPlus
from suite.methods.pact import Pact
from suite.methods.parq import Parq
from suite.quantizers.layers import Quantized
from suite.ranks import Ranks
from suite.recipe import Damping, Dataset, Freezing, Network, Precision, Recipe, Sgd, Training
from suite.recipe.errors import SuiteError
from suite.steps import TrainOn
from suite.train.fit import fit
from suite.train.oscillation import KEPT, OscillationControl, rising

TRAINING = Training(Network("resnet20"), Dataset("digits"), Sgd(1, 100, 0.1))


def first_weight(model: nn.Module) -> tuple[Any, Tensor]:
    """(quantizer, weight) of the first layer that has one."""
    held = next(module for module in model.modules() if isinstance(module, Quantized))
    weight = held.layer.weight
    assert isinstance(weight, Tensor)
    return held.weight, weight


def driven(
    how: Freezing, steps: int, wave: list[float], part: float = 1.0
) -> tuple[Any, Tensor, list[Tensor]]:
    """A weight whose first element follows `wave`, in step sizes; all others stay. Its quantizer, itself, and `jumps`
    of the first element after each step."""
    model = learning(Lsq(4, 4, first_last=4), small())
    control = OscillationControl(None, how)
    quantizer, weight = first_weight(model)
    with torch.no_grad():
        weight.view(-1)[0] = wave[0] * positive(quantizer.scale)
    control.begin(model)
    seen = []
    for step in range(steps):
        with torch.no_grad():
            weight.view(-1)[0] = wave[step % len(wave)] * positive(quantizer.scale)
        control.after_step(model, model, part)
        seen.append(quantizer.jumps.view(-1)[0].clone())
    return quantizer, weight, seen


def test_the_share_of_turns_of_a_square_wave_is_the_running_mean_by_hand() -> None:
    how = Freezing(threshold=0.99, first_threshold=1.0, momentum=0.1)
    _, _, seen = driven(how, 12, [2.0, 3.0])
    expected, share = [], 0.0
    for step in range(12):
        share += 0.1 * ((step > 1) - share)  # the first change has nothing to turn from, each later one turns
        expected.append(share)
    assert torch.stack(seen).tolist() == pytest.approx(expected, abs=1e-6)
    _, _, seen = driven(how, 12, [2.0, 2.0, 3.0, 3.0])
    assert torch.stack(seen).tolist()[-1] < expected[-1], "a slower wave turns less often"
    _, _, seen = driven(how, 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert torch.stack(seen).tolist() == [0.0] * 6, "a weight that moves one way does not turn"


def test_a_weight_that_turns_too_often_is_kept_at_its_mean_and_no_other() -> None:
    how = Freezing(threshold=0.2, first_threshold=0.2, momentum=0.1)
    quantizer, weight, _ = driven(how, 40, [2.0, 3.0, 3.0])
    frozen = quantizer.frozen.view(-1)
    assert frozen[0] and frozen.sum() == 1
    assert quantizer.mean.view(-1)[0] in (2.0, 3.0)
    assert weight.view(-1)[0] == quantizer.mean.view(-1)[0] * positive(quantizer.scale), (
        "put back after each step"
    )
    quantizer, _, seen = driven(how, 40, [2.0, 3.0, 3.0], part=0.1)
    assert seen[-1] > 0.2 and not quantizer.frozen.any(), "it turns often enough, but not before `begin`"


def test_the_threshold_falls_by_half_a_cosine_after_begin() -> None:
    assert [rising(part, 0.25) for part in (0.0, 0.25, 0.625, 1.0)] == pytest.approx([0, 0, 0.5, 1])
    assert rising(0.5, 0.0) == pytest.approx((1 - math.cos(math.pi / 2)) / 2)


def test_damping_is_the_squared_distance_to_the_level_and_pulls_towards_it() -> None:
    model = learning(Lsq(3, 3), small())
    penalty = OscillationControl(Damping(strength=0.5, begin=0.0), None).penalty(model, 1.0)
    assert penalty is not None
    expected = 0.0
    for held in (module for module in model.modules() if isinstance(module, Quantized)):
        weight, quantizer = held.layer.weight, held.weight
        assert isinstance(weight, Tensor) and quantizer is not None
        scale = positive(quantizer.scale.detach())
        ends = quantizer.grid.quant_min * scale, quantizer.grid.quant_max * scale
        distance = lsq(weight, scale, quantizer.grid, 0.0) - weight.clamp(*ends)
        # The authors' dampening_loss, whose default is "kernel_mean": loss.sum(0).mean().
        expected += 0.5 * float(distance.detach().square().sum(0).mean())
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-5)
    quantizer, weight = first_weight(model)
    (gradient,) = torch.autograd.grad(penalty, weight)
    scale = positive(quantizer.scale.detach())
    to_level = lsq(weight, scale, quantizer.grid, 0.0).detach() - weight.detach()
    clipped = (weight < quantizer.grid.quant_min * scale) | (weight > quantizer.grid.quant_max * scale)
    assert (gradient[~clipped] * to_level[~clipped] <= 0).all() and (gradient[clipped] == 0).all()
    assert OscillationControl(Damping(begin=0.5), None).penalty(model, 0.5) is None, "not before `begin`"


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_a_training_with_both_goes_on_from_a_saved_state_to_the_same_bits(level: str) -> None:
    sgd = Sgd(2, 10, 3.0, momentum=0.0, pad=1, flip=False, precision=Precision(level, "bfloat16"))  # type: ignore[arg-type]
    how = Freezing(threshold=0.1, first_threshold=0.1, begin=0.0, momentum=0.1)

    def trained(state: dict[str, Any] | None = None, stop_at: int = 0) -> tuple[nn.Module, Any]:
        model = learning(Lsq(4, 4, first_last=4), small())
        control = OscillationControl(Damping(), how)
        control.begin(model)
        for step in fit(model, digits(100), sgd, 0, Ranks(), state, control=control):
            if step.total == stop_at:
                return model, copy.deepcopy(step.state())
        return model, control

    whole, control = trained()
    rest, _ = trained(trained(stop_at=7)[1])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name]), name
    quantizer, weight = first_weight(whole)
    assert quantizer.frozen.any() and not quantizer.frozen.all()
    stays = (quantizer.mean * positive(quantizer.scale))[quantizer.frozen]
    assert torch.equal(weight[quantizer.frozen], stays)
    control.end(whole)
    assert not any(name.endswith(tuple(f"weight.{kept}" for kept in KEPT)) for name in whole.state_dict())


@pytest.mark.parametrize("kind", [Lsq, LsqPlus])
def test_weights_of_more_than_max_bits_are_not_frozen_and_are_damped(kind: type[LearnedMethod]) -> None:
    """The first and the last layer have 8 bits: the authors' add_oscillation_trackers leaves them out."""
    model = learning(kind(3, 3, first_last=8), tiny.network(10))
    held = [module for module in model.modules() if isinstance(module, Quantized)]
    widths = [one.weight.grid.bits for one in held if one.weight is not None]
    assert widths[0] == widths[-1] == 8 and set(widths[1:-1]) == {3}

    def tracked() -> list[bool]:
        return ["frozen" in dict(one.weight.named_buffers()) for one in held if one.weight is not None]

    control = OscillationControl(Damping(begin=0.0), Freezing())
    control.begin(model)
    assert tracked() == [bits <= 4 for bits in widths]
    control.after_step(model, model, 1.0)
    penalty = control.penalty(model, 1.0)
    assert penalty is not None
    first = held[0].layer.get_parameter("weight")
    (gradient,) = torch.autograd.grad(penalty, first)
    assert gradient.any(), "the authors damp every layer"
    control.end(model)
    assert not any(tracked())
    whole = OscillationControl(None, Freezing(max_bits=8))
    whole.begin(model)
    assert all(tracked())


def test_settings_that_are_none_and_networks_without_steps_that_learn_are_refused() -> None:
    with pytest.raises(SuiteError, match=r"Damping.begin must be from 0 to below 1, got 1"):
        Damping(begin=1)
    with pytest.raises(SuiteError, match="Freezing.momentum must be above 0, got 0"):
        Freezing(momentum=0)
    with pytest.raises(SuiteError, match="Freezing.max_bits must be a whole number from 2 on, got 1"):
        Freezing(max_bits=1)
    with pytest.raises(SuiteError, match="use them with lsq"):
        OscillationControl(Damping(), None).begin(small())
    with pytest.raises(SuiteError, match="at most 4 bits, and none has so few"):
        OscillationControl(None, Freezing()).begin(learning(Lsq(5, 5), small()))


@pytest.mark.parametrize(
    "values",
    [
        {"momentum": 2.0},
        {"momentum": 0.02},
        {"threshold": 0.0005},
        {"threshold": 0.2},
        {"threshold": 1.0, "first_threshold": 1.0},
        {"first_threshold": 1.5},
        {"first_threshold": math.nan},
    ],
    ids=str,
)
def test_thresholds_that_freeze_all_or_nothing_or_rise_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(SuiteError, match="Freezing needs momentum <= threshold <= first_threshold <= 1"):
        Freezing(**values)  # type: ignore[arg-type]
    assert Freezing() and Freezing(threshold=0.011)


@pytest.mark.parametrize("kind", [Pact, Dorefa, Ewgs, Apot, Parq, BinaryRelax])
def test_methods_without_step_sizes_of_weights_refuse_damping_and_freezing(kind: type[LearnedMethod]) -> None:
    with pytest.raises(
        SuiteError, match=f"damping is not for {kind.name} at 4 bits: it has no weights whose"
    ):
        kind(4, damping=Damping())
    with pytest.raises(SuiteError, match="freezing is not for"):
        kind(4, freezing=Freezing())


def test_where_nothing_can_freeze_it_is_refused() -> None:
    with pytest.raises(SuiteError, match="freezing is not for lsq at float"):
        Lsq(32, 4, first_last=32, freezing=Freezing())
    with pytest.raises(
        SuiteError, match="freezing is of weights of at most 4 bits; lsq has 5, and 8 in the first"
    ):
        Lsq(5, 5, freezing=Freezing())
    assert Lsq(5, 5, freezing=Freezing(max_bits=5)).training.freezing == Freezing(max_bits=5)
    plus = LsqPlus(3, 3, damping=Damping(), freezing=Freezing())
    assert [(step.damping, step.freezing) for step in plus.steps() if isinstance(step, TrainOn)] == [
        (Damping(), Freezing())
    ]
    assert "damping" in Recipe(TRAINING, plus).name
