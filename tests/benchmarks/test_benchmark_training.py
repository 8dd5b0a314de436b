"""The contenders of benchmarks/training compute what their names say, and its command measures what it names."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version

import pytest
import torch
from torch import Tensor, nn

from benchmarks.training import contenders, learned, timing
from benchmarks.training.__main__ import main
from suite.arithmetic.affine import Grid
from suite.data.images import Images
from suite.quantizers.quantizer import Quantizer
from suite.ranges.observers import Dynamic, MovingMinMax
from suite.ranks import Ranks
from suite.recipe import Dataset
from suite.train.bfloat16 import ROUNDED

BATCH = 8


def batches(count: int = 1) -> list[tuple[Tensor, Tensor]]:
    images = contenders.subject(count * BATCH, None, contenders.CPU)
    return list(images.train_batches(contenders.sgd(BATCH), 0, 0, Ranks()))


def gradient(quantizer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(what the quantizer makes of `x`, the gradient that reaches `x` from the sum)."""
    x = x.clone().requires_grad_()
    rounded = quantizer(x)
    rounded.sum().backward()
    assert x.grad is not None
    return rounded.detach(), x.grad


@pytest.mark.parametrize("what", ["weights", "inputs"])
def test_the_sources_quantizer_rounds_as_ours(what: str) -> None:
    generator = torch.Generator().manual_seed(0)
    if what == "weights":
        theirs, mine = contenders.Composed(None), Quantizer(Grid(8), Dynamic(0), "dynamic", axis=0)
    else:
        theirs, mine = contenders.Composed(0.1), Quantizer(Grid(8), MovingMinMax(0.1), "track")
    for number in range(3):  # ever larger, so that inputs are clipped
        x = torch.randn(16, 8, 3, 3, generator=generator) * (number + 1)
        (a, grad_a), (b, grad_b) = gradient(theirs, x), gradient(mine, x)
        scale = mine.scale.reshape(-1, 1, 1, 1)
        steps = x / scale
        tie = ((steps - steps.floor()) - 0.5).abs() < 1e-3
        assert bool(((a - b).abs() <= scale * 1.001).all())
        assert torch.allclose(a[~tie], b[~tie], rtol=1e-5, atol=0) and float(tie.float().mean()) < 0.05
        assert torch.allclose(grad_a[~tie], grad_b[~tie], rtol=1e-6, atol=0)
        assert (what == "inputs" and number > 0) == bool((grad_b == 0).any())


CONTENDERS: dict[str, Callable[[], nn.Module]] = {
    "float": lambda: contenders.build("resnet20"),
    "qat": lambda: contenders.with_quantizers(contenders.build("resnet20")),
    "source 001": lambda: contenders.composed("resnet20"),
    "torch.ao where ours are": lambda: contenders.torch_ao_here("resnet20"),
    "torch.ao": lambda: contenders.torch_ao("resnet20"),
}


RACED = [
    pytest.param(name, loop, marks=[pytest.mark.long] * (name.startswith("torch.ao") or name == "source 001"))
    for name in CONTENDERS
    for loop in ("sources", "ours O0")
]


@pytest.mark.parametrize(("name", "loop"), [*RACED, ("float", "ours O2"), ("qat", "ours O2")])
def test_every_contender_learns(name: str, loop: str) -> None:
    """Six steps on one batch bring its loss down."""
    model, ready = CONTENDERS[name](), batches()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    if loop == "sources":
        x, labels = ready[0]
        meters = contenders.sources(model, [(x.contiguous(), labels)], contenders.sgd(BATCH))
        losses = [next(meters)[0] for _ in range(6)]
    else:
        how = contenders.sgd(BATCH, contenders.HALF if loop == "ours O2" else contenders.FULL)
        steps = contenders.ours(model, contenders.Repeated(ready), how, Ranks())
        sums = [next(steps).read().loss * number for number in range(1, 7)]  # read() gives means so far
        losses = [b - a for a, b in zip([0.0, *sums], sums, strict=False)]
    assert losses[-1] < 0.8 * losses[0]
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.isfinite(new).all() and not torch.equal(old, new)


def test_all_contenders_begin_as_the_same_network() -> None:
    x, _ = batches()[0]
    flat, *others = (make().train()(x).detach() for make in CONTENDERS.values())
    assert all((other - flat).norm() < 0.2 * flat.norm() for other in others)


def test_both_ways_of_loading_give_the_same_images() -> None:
    """Of images of one colour crops show that colour and the padding, and nothing else."""
    labels = torch.arange(32)
    images = Images(torch.full((32, 3, 32, 32), 200, dtype=torch.uint8), labels, Dataset("cifar10"))
    mine, _ = next(images.train_batches(contenders.sgd(32), 0, 0, Ranks()))
    theirs, order = next(iter(contenders.loader(images, 32, workers=0)))
    assert torch.equal(order.sort().values, labels) and mine.shape == theirs.shape
    for channel in range(3):
        a, b = (x[:, channel].unique() for x in (mine, theirs))
        assert len(a) == 2 and torch.allclose(a, b)


def test_waits_of_the_host_are_seen() -> None:
    x = torch.ones(())

    def walk(waits: bool) -> Iterator[float]:
        while True:
            yield float((x + 1).item()) if waits else 0.0

    assert timing.host_waits(walk(True), 5, contenders.CPU)["aten::item"] == 5
    assert not any(timing.host_waits(walk(False), 5, contenders.CPU).values())


def test_a_race_gives_every_contender_the_same_turns() -> None:
    order: list[str] = []

    def walk(name: str) -> Iterator[None]:
        while True:
            order.append(name)
            yield

    seconds = timing.race({"a": walk("a"), "b": walk("b")}, steps=2, rounds=2)
    each = timing.WARMUP + 2
    assert "".join(order) == "".join(name * each for name in "abbaab")
    assert {name: len(took) for name, took in seconds.items()} == {"a": 2, "b": 2}


OF_PARTS = {
    "cpu": ["cpu_float_vs_sources", "cpu_qat_over_float", "cpu_qat_vs_composed", "cpu_qat_vs_torch_ao"],
    "gpu": [
        "rehearsal_images_per_second",
        "rehearsal_vs_sources",
        "rehearsal_qat_vs_float",
        "rehearsal_host_syncs_per_step",
    ],
    "network": ["network_training_vs_sources", "network_evaluation_vs_sources"],
    "learned": [f"learned_{name}_{what}" for name in learned.METHODS for what in ("time", "memory")],
    "avx2": ["cpu_bf16_over_float_avx2"],
}


@pytest.mark.parametrize("label", list(learned.METHODS))
def test_every_method_that_learns_is_timed_as_it_trains(label: str) -> None:
    method, ready = learned.METHODS[label], batches(2)
    network = contenders.build("resnet20")
    before = {name: one.detach().clone() for name, one in network.named_parameters()}
    steps = learned.walk(network, method, ready, contenders.sgd(BATCH), Ranks())
    step = [next(steps) for _ in range(4)][-1]
    assert 0 < step.read().loss < 100
    assert all(torch.equal(one, before[name]) for name, one in network.named_parameters()), "it trains a copy"


def test_the_peak_of_memory_is_what_a_step_holds_at_most() -> None:
    def walk(count: int) -> Iterator[None]:
        while True:
            first = torch.ones(count)
            second = first + 1
            del first
            third = second + 1
            del second, third
            yield

    found = learned.peak_memory(walk(1 << 20), contenders.CPU)
    assert 0 <= found - (2 * 4 << 20) < 64, "two tensors, and the scalar that is added"


@pytest.mark.parametrize(
    "parts",
    [("gpu",), ("learned",), pytest.param(tuple(OF_PARTS), marks=pytest.mark.long)],
    ids="-".join,
)
def test_the_command_measures_what_it_names(
    capsys: pytest.CaptureFixture[str], parts: tuple[str, ...]
) -> None:
    size = "--rounds 1 --steps 1 --epoch-steps 2 --batch 8 --workers 1"
    rehearsal = "--device cpu --network resnet20 --dtypes bfloat16"
    main(["--parts", *parts, *size.split(), *rehearsal.split()])
    lines = capsys.readouterr().out.splitlines()
    values = json.loads(lines[-1])
    assert list(values) == [name for part in parts for name in OF_PARTS[part]]
    assert values.pop("rehearsal_host_syncs_per_step", 0) == 0
    assert all(0 < value < float("inf") for value in values.values())
    assert f"torch {version('torch')}" in lines[0] and "thread" in lines[0]
    assert "gpu" not in parts or any(
        "any kernels" in line and "the first two steps" in line for line in lines
    )
    if "avx2" not in parts:
        return
    held = next(line for line in lines if "products of bfloat16" in line)
    assert platform.machine() != "x86_64" or held.startswith(f"AVX2, products of bfloat16: {ROUNDED}")


def test_the_gpu_part_does_not_run_elsewhere_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(SystemExit):
        main(["--parts", "gpu"])
    assert "--device cpu" in capsys.readouterr().err


def test_float16_is_scaled_as_the_sources_peer_on_a_gpu_is() -> None:
    model, (x, labels) = contenders.build("resnet20"), batches()[0]
    steps = contenders.sources(model, [(x[:2], labels[:2])], contenders.sgd(2), half=torch.float16)
    before = model.get_parameter("linear.weight").detach().clone()
    loss, _ = next(steps)
    assert 0 < loss < 100
    assert not torch.equal(before, model.get_parameter("linear.weight"))
