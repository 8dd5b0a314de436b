"""What a recipe is made of: data set, network, precision, training, calibration. Frozen; one with a value that it
cannot have raises SuiteError when it is made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from suite.recipe.errors import SuiteError, check_choice, check_not_negative, check_positive, check_whole
from suite.recipe.user_files import is_reference, resolved
from suite.recipe.words import counted

FLOAT_BITS = 32
"""The width of what is not quantized."""

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


RESNETS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet50", "resnet50_imagenet")
NETWORKS = (*RESNETS, "nin")
"""Those of the suite, by name."""

NEW = {"in_key_by_default": False}
"""Of a field that came later: where it has its default, keys and parameters are as they were before it."""

Level = Literal["O0", "O1", "O2", "O3"]


@dataclass(frozen=True)
class Dataset:
    """Images of side `size` pixels, scaled to 0..1 and normalized by `mean` and `std` per channel.

    name: one of IMAGES, which bring their mean, std and size; another name is that of `NAME.npz` or of the folder
    `NAME/train/CLASS/*` in the data folder; `my_data.py:load` is a function in the user's file, called with the split,
    "train" or "test", and the data folder, that returns images and labels as an .npz holds them.
    mean, std, size: what is not given, () and 0, comes from the training images when the sweep is planned.
    channels: 3 makes three equal channels of grey images; 1 is for grey images and networks that take one channel;
    other numbers are for arrays that have as many.
    sha256: of the user's file; found when the value is made.
    """

    name: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int = 0
    channels: int = field(default=3, metadata=NEW)
    sha256: str = field(default="", metadata=NEW)

    IMAGES: ClassVar[dict[str, tuple[int, int]]] = {
        "digits": (1198, 599),
        "cifar10": (50_000, 10_000),
        "cifar100": (50_000, 10_000),
        "imagenet": (1_281_167, 50_000),
    }
    """Of the training and of the test split."""

    CLASSES: ClassVar[dict[str, int]] = {"digits": 10, "cifar10": 10, "cifar100": 100}
    """How many there are, where every copy has as many."""

    def __post_init__(self) -> None:
        if is_reference(self.name):
            _find_user_file(self)
        elif not re.fullmatch(r"\w[\w.-]*", self.name):
            known = ", ".join(self.IMAGES)
            raise SuiteError(
                f"dataset {self.name!r} is unknown; use one of {known}, the name of NAME.npz or of a folder in the "
                f"data folder, or my_data.py:load"
            )
        for name, value in _usual_values(self.name).items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        check_whole(self, 1, channels=self.channels)
        check_whole(self, 0, size=self.size)
        if (
            len(self.mean) not in (0, self.channels)
            or len(self.std) != len(self.mean)
            or min(self.std, default=1) <= 0
        ):
            raise SuiteError(
                f"Dataset.mean and Dataset.std are {counted(self.channels, 'number')} each, std above 0, or both left "
                f"out; got {self.mean} and {self.std}"
            )

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be taken from the images."""
        return bool(self.mean and self.size)


def _usual_values(name: str) -> dict[str, Any]:
    """Mean, std and size of the suite's own data sets, where they are not given."""
    if name not in Dataset.IMAGES:
        return {}
    mean, std = (CIFAR100_MEAN, CIFAR100_STD) if name == "cifar100" else (CIFAR10_MEAN, CIFAR10_STD)
    return {"mean": mean, "std": std, "size": 32}


@dataclass(frozen=True)
class Network:
    """An architecture of `classes` outputs; 0 stands for as many as the data set has, and 10 without one.

    name: one of NETWORKS; `torchvision/NAME` or `timm/NAME` of those packages; or `my_net.py:build`, a function or
    class in the user's file that makes the nn.Module, called with `classes` or `num_classes` where it takes such a
    parameter.
    shortcut: how a residual block of one of RESNETS changes shape: "A" slices with stride 2 and pads channels with
    zeros (He et al. 2015, CIFAR), "B" is a 1x1 convolution with BatchNorm.
    sha256: of the user's file; found when the value is made.

    Raises SuiteError for a name of no kind, and where there is no such file.
    """

    name: str = "resnet20"
    shortcut: Literal["A", "B"] = "B"
    classes: int = 0
    sha256: str = field(default="", metadata=NEW)

    def __post_init__(self) -> None:
        kind, _, name = self.name.partition("/")
        if is_reference(self.name):
            _find_user_file(self)
        elif kind not in ("torchvision", "timm") or not name:
            check_choice("model", self.name, (*NETWORKS, "torchvision/NAME", "timm/NAME", "my_net.py:build"))
        check_choice("shortcut", self.shortcut, ("A", "B"))
        if self.shortcut == "A" and self.name not in RESNETS[:4]:
            raise SuiteError(f"shortcut 'A' does not exist for {self.name}; use 'B'")
        if self.classes < 2 and self.classes != 0:
            raise SuiteError(f"Network.classes must be 2 or more, got {self.classes}")


def _find_user_file(value: Network | Dataset) -> None:
    """Fill in the SHA-256 of the file that a name refers to, and take the folder out of the name."""
    if not value.sha256:
        name, sha256 = resolved(value.name)
        object.__setattr__(value, "name", name)
        object.__setattr__(value, "sha256", sha256)


@dataclass(frozen=True)
class Precision:
    """NVIDIA apex's O0 to O3 (`precision.py` has the rules); `dtype` is what "half" means."""

    level: Level = "O2"
    dtype: Literal["float16", "bfloat16"] = "float16"

    def __post_init__(self) -> None:
        check_choice("precision level", self.level, get_args(Level))
        check_choice("precision dtype", self.dtype, ("float16", "bfloat16"))

    def __str__(self) -> str:
        usual = self.level == "O0" and self.dtype == type(self).dtype
        return self.level if usual else f"{self.level} {self.dtype}"


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum, and the augmentation that belongs to it.

    `batch` is images over all ranks. `lr` rises linearly over `warmup_epochs` (may be a fraction), then is
    multiplied by `decay` at each epoch of `milestones`, or falls along a half cosine to zero.
    With crop "padded", `pad` pixels of zero are added on each side before a random crop back; with "resized", for
    ImageNet, 8 to 100 % of an image become its crop. `flip` mirrors half of the images.
    `image_sizes` is progressive resizing (DAWNBench; MosaicML Composer): the side in pixels of the images of the first
    epochs, one number an epoch, as (16, 16, 24); the epochs after them, and every evaluation, use the data set's size.
    The images of an epoch are cropped first and then resized (bilinear, antialiased).
    `world_size` ranks share each batch; with `sync_batch_norm` BatchNorm normalizes by the whole batch as one rank
    would, without by each rank's share. `optimizer` "apex" is NVIDIA apex's FusedSGD.
    The test images are evaluated every `evaluate_every` epochs, and after the last.
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
    crop: Literal["padded", "resized"] = "padded"
    pad: int = 4
    flip: bool = True
    precision: Precision = field(default_factory=Precision)
    world_size: int = 1
    sync_batch_norm: bool = True
    optimizer: Literal["torch", "apex"] = "torch"
    image_sizes: tuple[int, ...] = field(default=(), metadata=NEW)
    evaluate_every: int = field(default=1, metadata=NEW)

    def __post_init__(self) -> None:
        check_positive(self, lr=self.lr, decay=self.decay)
        whole = {"epochs": self.epochs, "batch": self.batch, "world_size": self.world_size}
        check_whole(self, 1, **whole, evaluate_every=self.evaluate_every)
        check_whole(self, 0, pad=self.pad)
        if self.batch < self.world_size:
            raise SuiteError(
                f"batch {self.batch} is less than world_size {self.world_size}: some ranks get no image"
            )
        check_not_negative(self, weight_decay=self.weight_decay)
        if not 0 <= self.momentum < 1 or not 0 <= self.label_smoothing < 1:
            raise SuiteError(f"momentum and label_smoothing are fractions: {self}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise SuiteError(f"warmup_epochs {self.warmup_epochs} must be fewer than epochs {self.epochs}")
        if not isinstance(self.milestones, tuple):
            raise SuiteError(f"milestones must be a tuple of epochs, got {self.milestones!r}")
        self._check_image_sizes()
        check_choice("schedule", self.schedule, ("steps", "cosine"))
        check_choice("crop", self.crop, ("padded", "resized"))
        check_choice("optimizer", self.optimizer, ("torch", "apex"))

    def _check_image_sizes(self) -> None:
        sizes = self.image_sizes
        if not isinstance(sizes, tuple) or not all(type(size) is int and size >= 1 for size in sizes):
            raise SuiteError(f"image_sizes must be a tuple of sides in pixels, one an epoch, got {sizes!r}")
        if len(sizes) >= self.epochs:
            raise SuiteError(
                f"image_sizes names {len(sizes)} of {counted(self.epochs, 'epoch')}; the last must be at the data "
                f"set's own size, which evaluation uses"
            )

    def image_size(self, epoch: int, dataset: Dataset) -> int:
        """The side in pixels of the training images of `epoch`, counted from 0."""
        return self.image_sizes[epoch] if epoch < len(self.image_sizes) else dataset.size


@dataclass(frozen=True)
class Calibration:
    """`images` of the training split, drawn without augmentation by `seed`, fed in batches of `batch`."""

    images: int = 1024
    batch: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, 1, images=self.images, batch=self.batch)


def check_crop(dataset: Dataset, sgd: Sgd) -> None:
    """Raise SuiteError unless the crops are those that the data set has; a user's is checked with its images."""
    if dataset.name not in Dataset.IMAGES:
        return
    wanted = "resized" if dataset.name == "imagenet" else "padded"
    if sgd.crop != wanted:
        raise SuiteError(f"crop {sgd.crop!r} is not for {dataset.name}; use {wanted!r}")


@dataclass(frozen=True)
class Damping:
    """Draws weights towards their levels (arXiv 2203.11086): `strength` times the squared distance joins the loss,
    rising from 0 when the part `begin` of the training is done, by half a cosine."""

    strength: float = 0.1
    begin: float = 0.25

    revision: ClassVar[int] = 2
    """1 summed over a kernel and averaged over kernels, 9 times as much for one of 3x3 as the authors."""

    def __post_init__(self) -> None:
        check_positive(self, strength=self.strength)
        _check_begin(self, self.begin)


@dataclass(frozen=True)
class Freezing:
    """Keeps weights that jump between levels where they are on average (arXiv 2203.11086): those that turn in more
    than a share of the steps, a running mean by `momentum`. From when the part `begin` of the training is done, that
    share falls from `first_threshold` to `threshold`, by half a cosine. Weights of more than `max_bits` stay free.
    Defaults: the authors' at 4 bits.

    Raises SuiteError where no weight could freeze, the share being never above 1, or each would that turns once, which
    makes the share `momentum`.
    """

    threshold: float = 0.01
    first_threshold: float = 0.1
    begin: float = 0.25
    momentum: float = 0.001
    max_bits: int = 4

    def __post_init__(self) -> None:
        check_whole(self, 2, max_bits=self.max_bits)
        check_positive(self, momentum=self.momentum)
        _check_begin(self, self.begin)
        if not self.momentum <= self.threshold <= self.first_threshold <= 1 or self.threshold == 1:
            raise SuiteError(
                f"Freezing needs momentum <= threshold <= first_threshold <= 1 and threshold below 1: from 1 on no "
                f"weight freezes, below momentum each does that turns once; got momentum {self.momentum}, threshold "
                f"{self.threshold}, first_threshold {self.first_threshold}"
            )


def _check_begin(owner: object, begin: float) -> None:
    """Raise SuiteError unless `begin` is a part of a training after which some of it is left."""
    if not 0 <= begin < 1:
        raise SuiteError(f"{type(owner).__name__}.begin must be from 0 to below 1, got {begin!r}")
