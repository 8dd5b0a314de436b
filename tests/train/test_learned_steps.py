"""What quantizers learn trains in float32 at every precision, in its own groups, over ranks, and goes on exactly."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.learned import learning
from fakes.ranks import together
from fakes.trainings import digits, small
from torch import nn

from suite.learned.quantizer import Learned, learned_values
from suite.methods.apot import Apot
from suite.methods.binary_relax import BinaryRelax
from suite.methods.dorefa import Dorefa
from suite.methods.ewgs import Ewgs
from suite.methods.lsq import Lsq
from suite.methods.lsq_plus import LsqPlus
from suite.methods.pact import Pact
from suite.methods.parq import Parq
from suite.methods.scheme import Scheme
from suite.quantizers.layers import Quantized, bake
from suite.ranks import Ranks
from suite.recipe import Precision, Sgd
from suite.steps import Lsq as LsqRounding
from suite.steps import Pact as PactRounding
from suite.steps import TrainOn
from suite.train.fit import fit
from suite.train.optimizer import learning_rate, make_optimizer
from suite.train.precision import Mixed

METHODS = [Lsq(4, 4), Lsq(2, 2, per="channel", initial="mean", step_lr=0.1, step_weight_decay=1e-4)]
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name} {method.per}")


def sgd(level: str = "O0", epochs: int = 1) -> Sgd:
    return Sgd(epochs, 20, 0.01, pad=1, flip=False, precision=Precision(level, "bfloat16"))  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
@EACH
def test_steps_learn_in_float32_at_every_level(level: str, method: Lsq) -> None:
    model = learning(method, small())
    before, values = copy.deepcopy(model.state_dict()), learned_values(model)
    assert len(values) == 4, "a weight and an input of two layers"
    *_, last = fit(model, digits(60), sgd(level), 0, Ranks())
    assert math.isfinite(last.read().loss)
    working = last._mixed.working
    assert {p.dtype for p in working.parameters() if isinstance(p, Learned)} == {torch.float32}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    learned = learned_values(model)
    assert all(values[name] != learned[name] and 0 < learned[name] < math.inf for name in values)
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert level == "O3" or len(moved) == len(list(model.parameters())), (
        "only bfloat16 is too coarse for some"
    )
    with torch.no_grad():
        trained = model.eval()(digits(8).normalized(digits(8).pixels))
        baked = bake(model)(digits(8).normalized(digits(8).pixels))
    assert torch.equal(trained, baked), "what was trained is what is left"
    assert not any(isinstance(p, Learned) for p in model.parameters())
    scales = [m.input.scale for m in model.modules() if isinstance(m, Quantized) and m.input is not None]
    assert len(scales) == 2 and all(scale > 0 for scale in scales)


RIVALS = [
    LsqPlus(4, 4, 4),
    Pact(4, 4, 4),
    Dorefa(4, 4, 4),
    Ewgs(4, 4, 4),
    Apot(4, 4, 4, first_last_inputs=4),
    Parq(4, 4, 4, until=0.5),
    BinaryRelax(4, 4, 4, until=0.5),
    Scheme(4, 4, LsqRounding(per="channel"), PactRounding(), training=(TrainOn(sgd()),)),
]


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
@pytest.mark.parametrize("method", RIVALS, ids=lambda method: method.name)
def test_every_rounding_learns_at_every_level_and_leaves_what_it_trained(level: str, method: Any) -> None:
    model = learning(method, small())
    values, x = learned_values(model), digits(8).normalized(digits(8).pixels)
    *_, last = fit(model, digits(60), sgd(level), 0, Ranks())
    assert math.isfinite(last.read().loss)
    working = last._mixed.working
    assert {p.dtype for p in working.parameters() if isinstance(p, Learned)} <= {torch.float32}
    learned = learned_values(model)
    assert sum(values[name] != learned[name] for name in values) >= len(values) / 2
    with torch.no_grad():
        trained, baked = model.eval()(x), bake(model)(x)
    assert torch.equal(trained, baked) and not learned_values(model)


@pytest.mark.parametrize("method", [METHODS[0], RIVALS[4], RIVALS[5]], ids=lambda method: method.name)
def test_torch_compiles_it_in_one_piece(method: Any) -> None:
    model, x = learning(method, small()), digits(8).normalized(digits(8).pixels)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    y = compiled(x)
    y.sum().backward()
    assert torch.equal(y, model(x)) and all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_a_training_goes_on_from_a_saved_state_to_the_same_bits(level: str) -> None:
    def network() -> nn.Module:
        return learning(METHODS[1], small())

    whole, part, rest = network(), network(), network()
    for _ in fit(whole, digits(100), sgd(level, 2), 0, Ranks()):
        pass
    for step in fit(part, digits(100), sgd(level, 2), 0, Ranks()):
        if step.total == 7:
            state = copy.deepcopy(step.state())
            break
    for _ in fit(rest, digits(100), sgd(level, 2), 0, Ranks(), state):
        pass
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name]), name


def test_learned_parameters_have_groups_of_their_own_and_networks_without_have_one_as_before() -> None:
    model = learning(METHODS[1], small())
    optimizer = make_optimizer(Sgd(1, 8, 0.5, weight_decay=1e-3), model.parameters())
    weights, steps = optimizer.param_groups
    assert (weights["weight_decay"], steps["weight_decay"], steps["lr_scale"]) == (1e-3, 1e-4, 0.1)
    assert len(steps["params"]) == 4 and not any(isinstance(p, Learned) for p in weights["params"])
    assert len(weights["params"]) + 4 == len(list(model.parameters()))
    (only,) = make_optimizer(Sgd(1, 8, 0.5), small().parameters()).param_groups
    assert "lr_scale" not in only and len(only["params"]) == 6


def test_the_learning_rate_of_steps_is_the_trainings_times_their_own() -> None:
    one = sgd(epochs=2)
    for step in fit(learning(METHODS[1], small()), digits(60), one, 0, Ranks()):
        if not step.epoch_ended:
            weights, steps = (group["lr"] for group in step._mixed.optimizer.param_groups)
            assert weights == learning_rate(one, step.epoch - 1, step.batches - 1, 3)
            assert steps == weights * 0.1


def test_a_copy_at_half_precision_keeps_what_learns_in_float32() -> None:
    model = learning(METHODS[0], small())
    for level in ("O2", "O3"):
        mixed = Mixed(model, Precision(level, "bfloat16"), lambda p: torch.optim.SGD(p, 0.1))  # type: ignore[arg-type]
        dtypes = {type(p): p.dtype for p in mixed.working.linear.parameters()}  # type: ignore[union-attr]
        assert dtypes == {nn.Parameter: torch.bfloat16, Learned: torch.float32}


OVER_RANKS = """
import sys, torch
from fakes.learned import learning
from fakes.trainings import digits, small
from suite.methods.lsq import Lsq
from suite.ranks import from_environment
from suite.learned.quantizer import learned_values
from suite.recipe import Precision, Sgd
from suite.train.fit import fit

ranks = from_environment()
torch.set_num_threads(1)
model = learning(Lsq(4, 4), small())
sgd = Sgd(1, 20, 0.5, pad=1, flip=False, precision=Precision("O0"), world_size=ranks.world_size)
for step in fit(model, digits(20), sgd, 0, ranks):
    pass
print(*(f"{value:.9f}" for value in learned_values(model).values()))
ranks.leave()
"""


def test_steps_learn_over_two_ranks_as_on_one(tmp_path: Path) -> None:
    """After one batch, when no rounding was other yet: the same but for the order of sums."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n{OVER_RANKS}"
    found = []
    for world_size in (1, 2):
        words = {said.split("\n")[-2] for said in together(world_size, script, tmp_path)}
        assert len(words) == 1, "all ranks have the same"
        found.append([float(word) for word in words.pop().split()])
    assert (
        found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6) and len(found[0]) == 4
    )  # of moves of about 0.03
    start = learned_values(learning(METHODS[0], small())).values()
    assert found[0] != pytest.approx(list(start), rel=1e-3)
