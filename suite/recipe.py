"""A recipe is a value: which network, from which start, quantized how. Equal recipes have equal keys.

Nothing here imports torch: planning a sweep, asking its status and reading its records is arithmetic on values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

from suite.values import SuiteError, check_choice, check_positive, check_whole, flat, to_json

FORMAT = 1
"""Version of everything written into a runs folder; raised when an older reader would misread it."""

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

NetworkName = Literal["resnet20", "resnet32", "resnet44", "resnet56", "resnet50", "resnet50_imagenet"]
Level = Literal["O0", "O1", "O2", "O3"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Dataset:
    """Images of side `size` pixels, scaled to 0..1 and normalized by `mean` and `std` per channel (RGB)."""

    name: Literal["digits", "cifar10"]
    mean: Triple = CIFAR10_MEAN
    std: Triple = CIFAR10_STD
    size: int = 32

    IMAGES: ClassVar[dict[str, tuple[int, int]]] = {"digits": (1198, 599), "cifar10": (50_000, 10_000)}

    def __post_init__(self) -> None:
        check_choice("dataset", self.name, self.IMAGES)
        check_whole(self, 1, size=self.size)


@dataclass(frozen=True)
class Network:
    """An architecture. `shortcut` is how a residual block changes shape: "A" slices with stride 2 and pads
    channels with zeros (He et al. 2015, CIFAR), "B" is a 1x1 convolution with BatchNorm."""

    name: NetworkName = "resnet20"
    shortcut: Literal["A", "B"] = "B"
    classes: int = 10

    def __post_init__(self) -> None:
        check_choice("model", self.name, get_args(NetworkName))
        check_choice("shortcut", self.shortcut, ("A", "B"))
        if self.shortcut == "A" and self.name.startswith("resnet50"):
            raise SuiteError(f"shortcut 'A' does not exist for {self.name}; use 'B'")
        if self.classes < 2:
            raise SuiteError(f"Network.classes must be 2 or more, got {self.classes}")


@dataclass(frozen=True)
class Precision:
    """NVIDIA apex's O0 to O3 (`precision.py` has the rules); `dtype` is what "half" means."""

    level: Level = "O2"
    dtype: Literal["float16", "bfloat16"] = "float16"

    def __post_init__(self) -> None:
        check_choice("precision level", self.level, get_args(Level))
        check_choice("precision dtype", self.dtype, ("float16", "bfloat16"))

    def __str__(self) -> str:
        return self.level if self.level == "O0" else f"{self.level} {self.dtype}"


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum, and the augmentation that belongs to it.

    `batch` is images over all ranks. `lr` rises linearly over `warmup_epochs` (may be a fraction), then is
    multiplied by `decay` at each epoch of `milestones`, or falls along a half cosine to zero.
    `pad` pixels of zero are added on each side before a random crop back; `flip` mirrors half of the images.
    """

    epochs: int
    batch: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    warmup_epochs: float = 0.0
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    label_smoothing: float = 0.0
    pad: int = 4
    flip: bool = True
    precision: Precision = field(default_factory=Precision)

    def __post_init__(self) -> None:
        check_positive(self, lr=self.lr, decay=self.decay)
        check_whole(self, 1, epochs=self.epochs, batch=self.batch)
        check_whole(self, 0, pad=self.pad)
        if not 0 <= self.momentum < 1 or not 0 <= self.label_smoothing < 1 or self.weight_decay < 0:
            raise SuiteError(
                f"momentum and label_smoothing are fractions and weight_decay is not negative: {self}"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise SuiteError(
                f"warmup_epochs {self.warmup_epochs} must be fewer than the {self.epochs} epochs"
            )
        if not isinstance(self.milestones, tuple):
            raise SuiteError(f"milestones must be a tuple of epochs, got {self.milestones!r}")
        check_choice("schedule", self.schedule, ("steps", "cosine"))


@dataclass(frozen=True)
class Calibration:
    """`images` of the training split, drawn without augmentation by `seed`, fed in batches of `batch`."""

    images: int = 1024
    batch: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, 1, images=self.images, batch=self.batch)


class Method(Protocol):
    """A way to quantize: prepare it, feed it, convert it. Implementations are frozen dataclasses.

    One that needs something of the machine also has `check()`, which raises SuiteError where that is missing; it is
    asked before a sweep starts.
    """

    revision: ClassVar[int]
    """Raised when the arithmetic changes, so that no older result is reused."""

    @property
    def weight_bits(self) -> int:
        """Bits of a stored weight; 32 is float."""

    @property
    def act_bits(self) -> int:
        """Bits of an activation; 32 is float."""

    @property
    def feed(self) -> Calibration | Sgd | None:
        """The data the method needs between prepare and convert."""

    def prepare(self, model: Any) -> Any:
        """A copy of the float `model` (nn.Module) that observes or fake-quantizes; `model` is unchanged."""

    def convert(self, model: Any) -> Any:
        """The model to evaluate, from what `prepare` gave and `feed` was fed to."""


class Stage:
    """One run: it leaves one directory, `runs/KEY/`. See Training, Pretrained and Recipe."""

    @property
    def needs(self) -> tuple[Stage, ...]:
        """The stages whose results this one starts from."""
        return ()

    @cached_property
    def key(self) -> str:
        """The first 16 hex digits of SHA-256 over every field that changes the result, nested ones included."""
        text = json.dumps(to_json(self, for_key=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """What people read: in plans, in MLflow, in tables."""
        raise NotImplementedError

    @property
    def params(self) -> dict[str, str | int | float | bool]:
        """Every field, flat, as MLflow parameters and as columns of the tables."""
        raise NotImplementedError


def _start_params(network: Network, dataset: Dataset) -> dict[str, Any]:
    return {
        "model": network.name,
        "shortcut": network.shortcut,
        "classes": network.classes,
        "dataset": dataset.name,
        "mean": ",".join(map(str, dataset.mean)),
        "std": ",".join(map(str, dataset.std)),
        "image_size": dataset.size,
    }


FLOAT = {"method": "float", "weight_bits": 32, "act_bits": 32}


@dataclass(frozen=True)
class Training(Stage):
    """A float network trained from scratch; `seed` sets its weights, its order of images and its crops.

    `world_size` ranks share a batch: BatchNorm statistics and the order of data depend on it.
    """

    network: Network
    dataset: Dataset
    sgd: Sgd
    world_size: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, 1, world_size=self.world_size)
        if self.sgd.batch % self.world_size:
            raise SuiteError(
                f"batch {self.sgd.batch} does not split over world_size {self.world_size}; use a multiple"
            )

    @property
    def name(self) -> str:
        return f"train {self.network.name} {self.dataset.name} {self.sgd.precision} seed {self.seed}"

    @property
    def params(self) -> dict[str, Any]:
        return {
            **FLOAT,
            "seed": self.seed,
            "world_size": self.world_size,
            **_start_params(self.network, self.dataset),
            **flat(self.sgd),
        }


@dataclass(frozen=True)
class Pretrained(Stage):
    """Somebody's checkpoint instead of a training. It is known by its `sha256`; where the `file` lies is not
    part of the key, so a copy elsewhere is the same stage."""

    network: Network
    dataset: Dataset
    file: str = field(metadata={"in_key": False})
    sha256: str = ""

    @property
    def name(self) -> str:
        return f"pretrained {self.network.name} {self.dataset.name} {self.sha256[:8]}"

    @property
    def params(self) -> dict[str, Any]:
        return {
            **FLOAT,
            "seed": 0,
            "world_size": 1,
            **_start_params(self.network, self.dataset),
            "checkpoint": Path(self.file).name,
            "checkpoint_sha256": self.sha256,
        }


@dataclass(frozen=True)
class Recipe(Stage):
    """A float network from `start`, quantized by `method`."""

    start: Training | Pretrained
    method: Method

    @property
    def needs(self) -> tuple[Stage, ...]:
        return (self.start,)

    @property
    def seed(self) -> int:
        """The seed of the training or, where the checkpoint is somebody's, of the calibration."""
        if isinstance(self.start, Training):
            return self.start.seed
        return self.method.feed.seed if isinstance(self.method.feed, Calibration) else 0

    @property
    def name(self) -> str:
        method = self.method
        width = f"w{method.weight_bits}" + (f"a{method.act_bits}" if method.act_bits < 32 else "")
        return " ".join([method_name(method), width, *_variations(method), f"seed {self.seed}"])

    @property
    def params(self) -> dict[str, Any]:
        feed = flat(self.method.feed) if self.method.feed else {}
        return {
            **self.start.params,
            **{f"feed_{name}": value for name, value in feed.items()},
            **flat(self.method),
            "method": method_name(self.method),
            "weight_bits": self.method.weight_bits,
            "act_bits": self.method.act_bits,
            "seed": self.seed,
        }


def method_name(method: Method) -> str:
    """The name of the file the method stands in."""
    return type(method).__module__.rpartition(".")[2]


def _variations(method: Any) -> list[str]:
    """The fields that differ from their defaults, but for the widths: `train_mode=True` is `train mode`."""
    words = [] if method.feed is None else _feed_variations(method)
    for item in dataclasses.fields(method):
        value = getattr(method, item.name)
        if item.name not in ("weight_bits", "act_bits", "feed") and value != item.default:
            label = item.name.replace("_", " ")
            words.append(label if value is True else f"no {label}" if value is False else f"{label} {value}")
    return words


def _feed_variations(method: Any) -> list[str]:
    """What the feed has that the method's default feed has not, but for the seed, which every name ends with."""
    usual = type(method)().feed
    told = {name: value for name, value in flat(method.feed).items() if name != "seed"}
    words = [f"{value} {name}" for name, value in told.items() if value != flat(usual or Calibration())[name]]
    return words if usual else ["calibrated", *words]


def plan(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Every stage once, each after what it needs, else in the order first met."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for needed in stage.needs:
            visit(needed)
        ordered.setdefault(stage.key, stage)

    for stage in stages:
        visit(stage)
    return tuple(ordered.values())
