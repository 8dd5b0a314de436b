"""Precision, schedule and evaluation, against plain references."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import partial

import pytest
import torch
from fakes.methods import inserted
from fakes.trainings import digits, small
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from suite import networks
from suite.methods.qat_asymmetric import QatAsymmetric
from suite.methods.qat_symmetric import QatSymmetric
from suite.quantizers.layers import bake
from suite.ranks import Ranks
from suite.recipe import Network, Precision, Sgd
from suite.recipe.errors import SuiteError
from suite.train.bfloat16 import products
from suite.train.fit import fit
from suite.train.optimizer import check_optimizer, learning_rate, make_optimizer
from suite.train.precision import Mixed
from suite.train.tally import DivergedError


def mixed(level: str, dtype: str = "bfloat16", lr: float = 0.1) -> Mixed:
    model = small()
    precision = Precision(level, dtype)  # type: ignore[arg-type]
    return Mixed(model, precision, partial(make_optimizer, Sgd(1, 8, lr, weight_decay=0.0)))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, 10, (8,), generator=generator)


def train(machine: Mixed, steps: int) -> None:
    for seed in range(steps):
        x, labels = batch(seed)
        machine.step(F.cross_entropy(machine.forward(machine.working, x), labels))
    machine.update_model()


def test_o0_equals_plain_sgd() -> None:
    machine, model = mixed("O0"), small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for seed in range(5):
        x, labels = batch(seed)
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    train(machine, 5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), machine.model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_o2_follows_apexs_rules_step_by_step(dtype: str) -> None:
    """Half weights but BatchNorm's, half inputs, float32 logits, float32 masters, a scaled loss: by hand."""
    machine, masters = mixed("O2", dtype), small()
    half, scale = getattr(torch, dtype), 65536.0 if dtype == "float16" else 1.0
    optimizer = torch.optim.SGD(masters.parameters(), lr=0.1, momentum=0.9)
    worker = copy.deepcopy(masters)
    for part in (worker.conv, worker.linear):
        part.to(half)
    for seed in range(5):
        x, labels = batch(seed)
        with products(torch.device("cpu"), half):  # else nothing could be equal on a CPU without bfloat16
            loss = F.cross_entropy(worker(x.to(half)).float(), labels)
            worker.zero_grad()
            (loss * scale).backward()
        for master, work in zip(masters.parameters(), worker.parameters(), strict=True):
            assert work.grad is not None
            master.grad = work.grad.float() / scale
        optimizer.step()
        with torch.no_grad():
            for master, work in zip(masters.parameters(), worker.parameters(), strict=True):
                work.copy_(master)
    train(machine, 5)
    assert {p.dtype for p in machine.working.parameters()} == {half, torch.float32}
    assert machine.working.norm.weight.dtype == torch.float32  # type: ignore[union-attr]
    assert {p.dtype for p in machine.model.parameters()} == {torch.float32}
    for ours, theirs in zip(machine.model.parameters(), masters.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(machine.model.norm.running_mean, worker.norm.running_mean)  # type: ignore[arg-type,union-attr]


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    machine = mixed("O2", "float16")
    before = copy.deepcopy(machine.model.state_dict())
    x, labels = batch(0)
    loss = F.cross_entropy(machine.forward(machine.working, x), labels)
    assert machine.step(loss * float("inf")).item() == 1.0
    assert (machine.loss_scale, machine.skipped_steps) == (32768.0, 1)
    assert all(torch.equal(before[name], value) for name, value in machine.model.state_dict().items())


def test_the_scale_doubles_after_two_thousand_good_steps() -> None:
    machine = mixed("O1", "float16", lr=1e-6)
    machine._good_steps.fill_(1999)
    train(machine, 1)
    assert (machine.loss_scale, machine._good_steps.item()) == (131072.0, 0)


def test_o3_has_no_float32_weights_at_work_and_o1_no_half_ones() -> None:
    assert {p.dtype for p in mixed("O3").working.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in mixed("O1").working.parameters()} == {torch.float32}


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
def test_every_level_trains_and_leaves_a_float32_model(level: str) -> None:
    machine = mixed(level)
    before = copy.deepcopy(machine.model.state_dict())
    train(machine, 3)
    after = machine.model.state_dict()
    assert all(value.dtype in (torch.float32, torch.int64) for value in after.values())
    assert all(not torch.equal(before[name], after[name]) for name in before), "BatchNorm's statistics too"


def test_the_steps_schedule_is_source_000s() -> None:
    sgd = Sgd(epochs=50, batch=1024, lr=0.4, warmup_epochs=5, milestones=(30,))
    assert learning_rate(sgd, 0, 0, 49) == pytest.approx(0.4 / (5 * 49))
    assert learning_rate(sgd, 4, 48, 49) == pytest.approx(0.4)
    assert {learning_rate(sgd, epoch, 48, 49) for epoch in range(5, 30)} == {0.4}
    assert learning_rate(sgd, 30, 0, 49) == pytest.approx(0.04)


@given(st.integers(0, 9), st.integers(0, 19))
def test_the_cosine_falls_from_the_rate_towards_zero_and_never_reaches_it(epoch: int, step: int) -> None:
    sgd = Sgd(epochs=10, batch=32, lr=0.5, warmup_epochs=1, schedule="cosine")
    rate = learning_rate(sgd, epoch, step, 20)
    assert 0 < rate <= 0.5
    if epoch >= 1:
        assert rate == pytest.approx(0.25 * (1 + math.cos(math.pi * (epoch - 1 + step / 20) / 9)))


def test_fit_learns_and_yields_each_batch_and_each_epoch() -> None:
    model = small()
    sgd = Sgd(epochs=8, batch=50, lr=0.2, pad=0, flip=False, precision=Precision("O2", "bfloat16"))
    steps, readings = [], []
    for step in fit(model, digits(180), sgd, 0, Ranks()):
        steps.append(step)
        if step.epoch_ended:
            readings.append(step.read())
    assert len(steps) == 8 * (4 + 1) and len(readings) == 8
    assert [step.images for step in steps[:5]] == [50, 100, 150, 180, 180]
    assert [step.total for step in steps[:6]] == [1, 2, 3, 4, 4, 5]
    assert readings[-1].loss < readings[0].loss and readings[-1].top1 > readings[0].top1


def test_the_same_seed_trains_to_the_same_weights_and_another_does_not() -> None:
    def trained(seed: int) -> Tensor:
        model = small()
        for _ in fit(model, digits(100), Sgd(2, 20, 0.1, precision=Precision("O0")), seed, Ranks()):
            pass
        return model.linear.weight.detach()  # type: ignore[union-attr,operator,return-value]

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_a_step_skipped_for_an_overflow_is_counted_and_left_out_of_the_loss() -> None:
    model = small()
    with torch.no_grad():
        model.linear.weight.mul_(1e4)  # type: ignore[union-attr,operator]
    sgd = Sgd(3, 20, 1e-3, precision=Precision("O2", "float16"))
    *_, last = fit(model, digits(200), sgd, 0, Ranks())
    now = last.read()
    assert now.skipped_steps > 0 and math.isfinite(now.loss)


def test_a_first_step_that_is_skipped_leaves_momentum_at_zero() -> None:
    """torch's fused SGD makes its momentum buffer of whatever memory held when its very first step is skipped."""
    machine = mixed("O2", "float16")
    x, labels = batch(0)
    machine.step(F.cross_entropy(machine.forward(machine.working, x), labels) * float("inf"))
    buffers = [state["momentum_buffer"] for state in machine.optimizer.state.values()]
    assert len(buffers) == 6 and all((buffer == 0).all() for buffer in buffers)


def test_a_loss_that_diverges_says_in_which_step() -> None:
    steps = fit(small(), digits(100), Sgd(3, 10, 1e18, precision=Precision("O0")), 0, Ranks())
    with pytest.raises(DivergedError, match=r"became inf or NaN in step \d+; lower the learning rate"):
        for step in steps:
            step.read()


def test_a_rank_count_other_than_the_stages_is_refused() -> None:
    with pytest.raises(SuiteError, match="world_size 4, but is run by 1 rank; start it with torchrun"):
        Ranks().check(4)


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
@pytest.mark.parametrize("method", [QatSymmetric, QatAsymmetric])
def test_quantization_aware_training_works_at_every_level(level: str, method: type) -> None:
    """Ranges are followed, weights move, the loss is finite, and what is left is float32 on a grid of 8 bits."""
    torch.manual_seed(0)
    model = inserted(method(), networks.build(Network("resnet20")))
    before = copy.deepcopy(model.state_dict())
    precision = Precision(level, "bfloat16")  # type: ignore[arg-type]
    *_, last = fit(model, digits(60), Sgd(1, 20, 0.01, pad=1, flip=False, precision=precision), 0, Ranks())
    assert math.isfinite(last.read().loss)
    after = model.state_dict()
    assert {value.dtype for value in after.values()} == {torch.float32, torch.int64}
    moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert any(name.endswith("input.observer.high") for name in moved) and "linear.weight" in moved
    baked = bake(model)
    weight = baked.layer1[0].conv1.layer.weight  # type: ignore[union-attr,index]
    assert all(len(channel.unique()) <= 256 for channel in weight)


def test_apexs_fused_optimizer_is_refused_where_apex_is_not_installed() -> None:
    try:
        import amp_C  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(
            SuiteError, match=r"needs NVIDIA apex built with its CUDA extensions.*PyPI's apex is another"
        ):
            check_optimizer(Sgd(1, 20, 0.1, optimizer="apex"))
    else:
        check_optimizer(Sgd(1, 20, 0.1, optimizer="apex"))


def test_nothing_in_a_step_asks_the_device_for_a_number() -> None:
    """On a GPU that would wait for it: no item(), no bool(), in a float and in a quantization-aware step under O2."""
    for quantized in (False, True):
        torch.manual_seed(0)
        model = networks.build(Network("resnet20"))
        model = inserted(QatSymmetric(), model) if quantized else model
        images = digits(40)
        steps = fit(model, images, Sgd(1, 20, 0.01, pad=1, precision=Precision("O2", "bfloat16")), 0, Ranks())
        next(steps)  # ranges get their shapes
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            next(steps)
        done = {event.key for event in seen.key_averages()}
        assert not done & {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero"} and len(done) > 30


def test_an_overflow_skips_the_fused_optimizers_step_on_the_device() -> None:
    """As on a GPU: nothing is asked, the weights stay, momentum stays zero, and the next step is that of the first."""

    def fused(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        listed = list(parameters)
        optimizer = torch.optim.SGD(listed, lr=0.1, momentum=0.9, fused=True)
        for parameter in listed:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer

    def stepped(overflows: int) -> Mixed:
        machine = Mixed(small(), Precision("O2", "float16"), fused)
        x, labels = batch(0)
        for number in range(overflows + 1):
            loss = F.cross_entropy(machine.forward(machine.working, x), labels)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
                skipped = machine.step(loss * (torch.inf if number < overflows else 1.0))
            assert "aten::_local_scalar_dense" not in {event.key for event in seen.key_averages()}
            assert skipped.item() == (number < overflows)
        return machine

    once, after_two = stepped(0), stepped(2)
    assert (after_two.skipped_steps, after_two.loss_scale) == (2, 16384.0)
    for a, b in zip(once.model.parameters(), after_two.model.parameters(), strict=True):
        # The gradient was scaled by another power of two, and is half: of the tiniest, bits are lost.
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)
    assert any(
        not torch.equal(a, b) for a, b in zip(once.model.parameters(), small().parameters(), strict=True)
    )
