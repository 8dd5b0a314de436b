"""A recipe is a value: which network, from which start, quantized how. Equal recipes have equal keys.

One whose parts do not go together raises SuiteError when it is made.
Nothing here imports torch: planning a sweep, asking its status and reading its records is arithmetic on values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from suite.recipe.errors import SuiteError, check_bits, check_choice, check_kinds
from suite.recipe.method import BatchNorm, Method, Step
from suite.recipe.method_check import check_own, check_teacher
from suite.recipe.naming import (
    combined,
    edges_of,
    method_params,
    method_words,
    network_params,
    network_words,
    training_words,
    width_words,
)
from suite.recipe.serialize import flat, key_of
from suite.recipe.settings import FLOAT_BITS, NEW, Dataset, Network, Sgd, check_crop
from suite.recipe.user_files import of_value

FORMAT = 1
"""Version of everything written into a runs folder; raised when an older reader would misread it."""


class Stage:
    """One run: it leaves one directory, `runs/KEY/`. See Training, Pretrained and Recipe."""

    def __str__(self) -> str:
        return self.name

    @cached_property
    def needs(self) -> tuple[Stage, ...]:
        """The stages whose results this one starts from, of a recipe its float stage first."""
        return ()

    @cached_property
    def key(self) -> str:
        """The first 16 hex digits of SHA-256 over every field that changes the result, nested ones included."""
        return key_of(self)

    @cached_property
    def name(self) -> str:
        """What people read: in plans, in MLflow, in tables. It tells whatever differs between two stages, but for what
        two recipes start from: the beginning of its key says which."""
        raise NotImplementedError

    @property
    def trains_by(self) -> Sgd | None:
        """How the stage trains, or None where it does not."""
        return None

    @property
    def world_size(self) -> int:
        """How many ranks run the stage."""
        return self.trains_by.world_size if self.trains_by else 1

    @property
    def params(self) -> dict[str, str | int | float | bool]:
        """Every field, flat, as MLflow parameters and as columns of the tables. A method's field that is called as one
        of a training or of the feed is prefixed: `method_momentum`."""
        raise NotImplementedError


FLOAT = {"method": "float", "weight_bits": FLOAT_BITS, "act_bits": FLOAT_BITS}


@dataclass(frozen=True)
class Training(Stage):
    """A float network trained from scratch; `seed` sets its weights, its order of images and its crops."""

    network: Network
    dataset: Dataset
    sgd: Sgd
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds(self, network=Network, dataset=Dataset, sgd=Sgd)
        _take_classes(self)
        check_crop(self.dataset, self.sgd)

    @property
    def trains_by(self) -> Sgd:
        return self.sgd

    @cached_property
    def name(self) -> str:
        words = ["train", *network_words(self.network, self.dataset), *training_words(self.sgd)]
        return " ".join([*words, f"seed {self.seed}"])

    @property
    def params(self) -> dict[str, Any]:
        return combined(
            FLOAT, {"seed": self.seed}, network_params(self.network, self.dataset), flat(self.sgd)
        )


@dataclass(frozen=True)
class Pretrained(Stage):
    """Somebody's checkpoint instead of a training. It is known by its `sha256`; where the `file` lies is not
    part of the key, so a copy elsewhere is the same stage. A sweep may leave `sha256` empty: it is computed when the
    sweep is planned."""

    network: Network
    dataset: Dataset
    file: str = field(metadata={"in_key": False})
    sha256: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.file, Path):
            object.__setattr__(self, "file", str(self.file))
        check_kinds(self, network=Network, dataset=Dataset, file=str)
        _take_classes(self)
        if self.sha256 and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise SuiteError(
                f"Pretrained.sha256 must be 64 hex digits in lower case, got {self.sha256!r}; write what sha256sum "
                f"prints, or leave it out, and it is computed"
            )

    @cached_property
    def name(self) -> str:
        words = ["pretrained", *network_words(self.network, self.dataset), self.sha256[:8]]
        return " ".join(words)

    @property
    def params(self) -> dict[str, Any]:
        checkpoint = {"checkpoint": Path(self.file).name, "checkpoint_sha256": self.sha256}
        return combined(
            FLOAT, {"seed": 0, "world_size": 1}, network_params(self.network, self.dataset), checkpoint
        )


def _take_classes(start: Training | Pretrained) -> None:
    """A network without a number of classes gets that of the data set, where it is known."""
    known = Dataset.CLASSES.get(start.dataset.name, 10 if start.dataset.name in Dataset.IMAGES else 0)
    if not start.network.classes and known:
        object.__setattr__(start, "network", replace(start.network, classes=known))


@dataclass(frozen=True)
class Recipe(Stage):
    """A float network from `start`, quantized by `method`."""

    start: Training | Pretrained
    method: Method
    batch_norm: BatchNorm = field(default="kept", metadata=NEW)
    edge_bits: int | None = field(default=None, metadata=NEW)
    """Of weight and input of the first and the last layer that is quantized, 32 for float; None: as the rest."""
    continues: Recipe | None = field(default=None, metadata=NEW)
    """A training of the same float network, as one at a wider width, with whose weights and BatchNorm this one begins:
    the weights as they were before they were rounded for good."""

    def __post_init__(self) -> None:
        check_kinds(self, start=(Training, Pretrained), method=Method)
        check_own(self.method)
        if self.trains_by:
            check_crop(self.start.dataset, self.trains_by)
        name = self.method.name
        check_choice("batch_norm", self.batch_norm, get_args(BatchNorm))
        own = self.method.batch_norm
        if self.batch_norm != "kept" and own not in ("kept", "trained"):
            raise SuiteError(f"batch_norm {self.batch_norm!r} is not for {name}, whose own is {own!r}")
        if self.batch_norm == "frozen" and not self.trains_by:
            raise SuiteError(
                f"batch_norm 'frozen' is for trainings; {name} has none, and so 'kept' is the same"
            )
        if self.batch_norm in ("folded", "frozen") and self.from_scratch:
            raise SuiteError(
                f"batch_norm {self.batch_norm!r} needs the statistics that {name} from scratch has not"
            )
        check_bits("edge_bits", self.edge_bits, None, FLOAT_BITS)
        if self.edge_bits and not any(step.sets_widths for step in self._steps):
            raise SuiteError(
                f"edge_bits is not for {name}, which gives its layers their widths in its own way"
            )
        self._check_continued(name)
        for teacher in self._teachers:
            check_teacher(teacher, self.start)

    def _check_continued(self, name: str) -> None:
        if (before := self.continues) is None:
            return
        if not self.trains_by or not before.trains_by or self.from_scratch:
            raise SuiteError(
                f"continues is for a training that begins with the weights of another; {name} or "
                f"{before.method.name} does not train, or begins untrained"
            )
        if "folded" in (self.batch_norm, before.batch_norm):
            raise SuiteError("continues is not for folded BatchNorm; use 'kept' or 're-estimated'")
        if before.start != self.start:
            raise SuiteError(
                f"a recipe continues a training of its own float network, {self.start.name}; got one of "
                f"{before.start.name}"
            )

    @property
    def revision(self) -> int | None:
        """Of what the suite itself does, in the key. 2 where a recipe continues another and calibrates: before, its
        inputs were calibrated on the float network."""
        return 2 if self.continues and self.method.calibrates_on else None

    @cached_property
    def _steps(self) -> tuple[Step, ...]:
        """Asked for more than once by each of thousands of recipes that `status` reads."""
        return self.method.steps()

    @property
    def trains_by(self) -> Sgd | None:
        return self.method.trains_by

    @property
    def from_scratch(self) -> bool:
        """Whether the method trains the network from its initial weights."""
        return any(step.starts_untrained for step in self._steps)

    @property
    def _teachers(self) -> list[Any]:
        """The stages whose networks the method's steps take as teachers."""
        return [stage for step in self._steps for stage in getattr(step, "needs", ())]

    @cached_property
    def needs(self) -> tuple[Stage, ...]:
        beside = [*([self.continues] if self.continues else []), *self._teachers]
        return (self.start, *{stage.key: stage for stage in beside if stage != self.start}.values())

    @property
    def seed(self) -> int:
        """The seed of the training or, where the checkpoint is somebody's, of the calibration."""
        if isinstance(self.start, Training):
            return self.start.seed
        return self.method.calibrates_on.seed if self.method.calibrates_on else 0

    @cached_property
    def name(self) -> str:
        return " ".join([*self._words, f"seed {self.seed}", f"from {self.start.key[:8]}"])

    @property
    def _words(self) -> list[str]:
        """The name without what many recipes share."""
        method = self.method
        width = f"w{method.weight_bits}" + (f"a{method.act_bits}" if method.act_bits < 32 else "")
        batch_norm = [] if self.batch_norm == "kept" else [f"BatchNorm {self.batch_norm}"]
        edges = [f"edges {width_words(self.edge_bits)}"] if self.edge_bits else []
        words = [
            method.name,
            width,
            *method_words(method),
            *batch_norm,
            *edges,
            *self._calibration_words,
        ]
        return [*words, "continues", *self._continued] if self.continues else words

    @property
    def _continued(self) -> list[str]:
        if (before := self.continues) is None:
            return []
        return [*before._words, *([] if before.seed == self.seed else [f"seed {before.seed}"])]

    @property
    def _calibration_words(self) -> list[str]:
        """Which calibration images are drawn, where the recipe's own seed is that of a training."""
        calibration = self.method.calibrates_on
        seed = isinstance(self.start, Training) and calibration and calibration.seed
        return [f"calibration seed {seed}"] if seed else []

    @property
    def params(self) -> dict[str, Any]:
        data = self.method.trains_by or self.method.calibrates_on
        feed = flat(data) if data else {}
        if self.method.trains_by and (calibration := self.method.calibrates_on):
            feed |= {"seed": calibration.seed, "calibration_images": calibration.images}
            feed |= {"calibration_batch": calibration.batch}
        own = self.batch_norm if self.batch_norm != "kept" else self.method.batch_norm
        identity = {
            "method": self.method.name,
            "weight_bits": self.method.weight_bits,
            "act_bits": self.method.act_bits,
            "seed": self.seed,
        }
        if own_file := of_value(self.method):
            identity |= {"method_file": own_file.name, "method_sha256": own_file.sha256}
        return combined(
            {name: value for name, value in self.start.params.items() if name not in identity},
            {f"feed_{name}": value for name, value in feed.items()},
            method_params({name: value for name, value in flat(self.method).items() if name not in identity}),
            {"batch_norm": own, "edges": edges_of(self.method, self.edge_bits)},
            {"continues": " ".join(self._continued)} if self.continues else {},
            identity,
        )
