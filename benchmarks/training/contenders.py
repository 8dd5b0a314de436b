"""Who is timed: our training, the sources' and torch.ao's, their networks, quantizers and data."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig, get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Indexed

from suite import networks
from suite.data import datasets
from suite.data.images import Images
from suite.methods.qat_symmetric import QatSymmetric
from suite.networks.torchvision_import import torchvision
from suite.quantizers.layers import quantize
from suite.ranks import Ranks
from suite.recipe import Dataset, Network, Precision, Sgd
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import Insert
from suite.train.fit import Step, fit

CPU = torch.device("cpu")
FULL, HALF = Precision("O0"), Precision("O2", "bfloat16")
Batch = tuple[Tensor, Tensor]


def sgd(batch: int, precision: Precision = FULL) -> Sgd:
    """How all contenders train; nothing here depends on the rate, which only must not diverge."""
    return Sgd(epochs=10**6, batch=batch, lr=0.01, precision=precision)


def build(name: str) -> nn.Module:
    """A network for 32x32 images, its random weights the same at every call."""
    torch.manual_seed(0)
    return networks.build(Network(name))


def with_quantizers(network: nn.Module) -> nn.Module:
    """A copy of `network` as source 001's symmetric method trains it."""
    steps = [step for step in QatSymmetric().steps() if isinstance(step, Insert)]
    return quantized(steps, InMemoryFeed(network))


def subject(count: int, folder: Path | None, device: torch.device) -> Images:
    """`count` images of CIFAR-10, again from the first where they are too few, or of random pixels."""
    if folder is not None:
        whole = datasets.load(Dataset("cifar10"), "train", folder, device)
        assert isinstance(whole, Images)
        index = torch.arange(count, device=device) % len(whole)
        return Images(whole.pixels[index], whole.labels[index], whole.dataset)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return Images(pixels.to(device), labels.to(device), Dataset("cifar10"))


class Repeated:
    """Batches that are ready, again and again, instead of Images: an epoch without end."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 10**6 * len(self.batches[0][1])

    def train_batches(self, *_: object) -> Iterator[Batch]:
        """As those of Images."""
        return itertools.cycle(self.batches)


def ours(
    model: nn.Module, images: Images | Repeated, how: Sgd, ranks: Ranks, compiled: bool = False
) -> Iterator[Step]:
    """Training as a run does it; an epoch's end falls to the next one's first step."""
    placed: nn.Module = model.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = fit(placed, cast(Images, images), how, 0, ranks, compiled=compiled)
    return (step for step in steps if not step.epoch_ended)


def sources(
    model: nn.Module,
    batches: Iterable[Batch],
    how: Sgd,
    device: torch.device = CPU,
    half: torch.dtype | None = None,
) -> Iterator[tuple[float, float]]:
    """Training as the sources do it, epoch after epoch; yields what their meters take: loss and top1 of each step."""
    model = model.to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay
    )
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    while True:
        for x, labels in batches:
            with torchs_own_kernels():
                x, labels = x.to(device), labels.to(device)
                with torch.autocast(device.type, dtype=half, enabled=half is not None):
                    logits = model(x)
                    loss = criterion(logits, labels)
                meters = loss.item(), 100 * (logits.argmax(1) == labels).float().mean().item()
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            yield meters


@contextlib.contextmanager
def torchs_own_kernels() -> Iterator[None]:
    """Also where the suite asks for those that give the same bits each time, which the sources do not."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


def by_any_kernels(walk: Iterator[Step]) -> Iterator[Step]:
    """The same steps by the kernels that torch chooses by itself, which may give other bits each time."""
    while True:
        with torchs_own_kernels():
            step = next(walk)
        yield step


class Pictures(Indexed[tuple[Any, int]]):
    """Images as torchvision.datasets.CIFAR10 gives them: an array, of which each picture is made anew."""

    def __init__(self, images: Images) -> None:
        self.data: np.ndarray = images.pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self.targets = images.labels.tolist()
        transforms = torchvision.transforms
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(images.dataset.mean, images.dataset.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def loader(images: Images, batch: int, workers: int) -> Iterable[Batch]:
    """As the sources load."""
    return DataLoader(Pictures(images), batch_size=batch, shuffle=True, num_workers=workers)


class Round(torch.autograd.Function):
    """To the nearest integer, half to even; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        return grad[0]


class Composed(nn.Module):
    """Source 001's symmetric quantizer of 8 bits, in its own operations: autograd keeps what each of them needs.

    Weights (`momentum` None) by the extremes of each output channel, inputs by a moving average of the batches'
    extremes. zero_point is always zero.
    """

    low: Tensor
    high: Tensor
    first: Tensor
    zero_point: Tensor

    def __init__(self, momentum: float | None) -> None:
        super().__init__()
        self.momentum = momentum
        for name in ("low", "high", "first", "zero_point"):
            self.register_buffer(name, torch.zeros(1))

    @torch.no_grad()
    def track(self, x: Tensor) -> None:
        """Take in the extremes of `x`."""
        if self.momentum is None:
            low = high = x
            for dim in (3, 2, 1):
                low, high = torch.min(low, dim, keepdim=True)[0], torch.max(high, dim, keepdim=True)[0]
            self.low, self.high = low, high
        elif self.first == 0:
            self.first.add_(1)
            self.low.add_(x.min())
            self.high.add_(x.max())
        else:
            self.low.mul_(1 - self.momentum).add_(x.min() * self.momentum)
            self.high.mul_(1 - self.momentum).add_(x.max() * self.momentum)

    def forward(self, x: Tensor) -> Tensor:
        self.track(x)
        scale = 127 / torch.max(self.low.abs(), self.high.abs())
        rounded: Tensor = Round.apply(x * scale - self.zero_point)  # type: ignore[no-untyped-call]
        return (torch.clamp(rounded, -128, 127) + self.zero_point) / scale


def replaced(name: str, act: Callable[[], nn.Module], weight: Callable[[], nn.Module]) -> nn.Module:
    """The network with other quantizers where ours are: on all convolutions, the image left alone."""
    insert: Any = quantize
    result: nn.Module = insert(build(name), (nn.Conv2d,), lambda first: None if first else act(), weight)
    return result


def composed(name: str) -> nn.Module:
    """The network with the source's quantizers."""
    return replaced(name, partial(Composed, 0.1), partial(Composed, None))


def torch_ao_here(name: str) -> nn.Module:
    """The network with torch.ao's fake quantizers where ours are."""
    config = get_default_qat_qconfig("x86")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own default is deprecated
        return replaced(name, config.activation, config.weight)


def torch_ao(name: str) -> nn.Module:
    """The network as torch.ao prepares it: fused, every activation rounded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao announces its removal at every call
        example = (torch.zeros(1, 3, 32, 32),)
        prepared: nn.Module = prepare_qat_fx(
            build(name).train(), get_default_qat_qconfig_mapping("x86"), example
        )
    return prepared
