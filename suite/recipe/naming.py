"""What people know a stage by: the words of its name, and its parameters, of which none replaces another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from suite.recipe.errors import SuiteError
from suite.recipe.serialize import DATA_FIELDS, content_of, default, flat, text
from suite.recipe.settings import (
    FLOAT_BITS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    RESNETS,
    Calibration,
    Dataset,
    Network,
    Sgd,
)
from suite.recipe.words import counted, in_words, phrase

Params = dict[str, Any]


def network_params(network: Network, dataset: Dataset) -> Params:
    """The fields of a float network and its data set, flat."""
    data = flat(dataset)
    return {
        "model": network.name,
        **({"shortcut": network.shortcut} if network.name in RESNETS else {}),
        **({"network_sha256": network.sha256} if network.sha256 else {}),
        "classes": network.classes,
        "dataset": dataset.name,
        "mean": data["mean"],
        "std": data["std"],
        "image_size": dataset.size,
        **({"channels": dataset.channels} if dataset.channels != 3 else {}),
        **({"dataset_sha256": dataset.sha256} if dataset.sha256 else {}),
    }


def _names(kind: type) -> set[str]:
    return {item.name for item in dataclasses.fields(kind)}


TAKEN = frozenset(
    {"method", "seed", "batch_norm", "edges", "continues", "checkpoint", "checkpoint_sha256"}
    | network_params(Network(), Dataset("digits")).keys()
    | _names(Sgd)
    | {f"feed_{name}" for name in (*_names(Sgd), *_names(Calibration))}
)
"""Parameters that a method's field of the same name would replace: those of its float network and of its feed."""


def method_params(fields: Mapping[str, Any]) -> Params:
    """A method's fields as parameters: `momentum`, which a training has too, is `method_momentum`.

    The name does not depend on what the method starts from, so that a column of a table holds one thing.
    """
    return combined(*({f"method_{name}" if name in TAKEN else name: value} for name, value in fields.items()))


def combined(*parts: Mapping[str, Any]) -> Params:
    """All parameters in one dictionary. Raises SuiteError where two parts have one of the same name."""
    found: Params = {}
    for part in parts:
        if twice := sorted(found.keys() & part.keys()):
            raise SuiteError(
                f"two values want the parameter {twice[0]!r}: {found[twice[0]]!r} and {part[twice[0]]!r}; rename the "
                f"method's field"
            )
        found |= part
    return found


def network_words(network: Network, dataset: Dataset) -> list[str]:
    """Network and data set, and what of them is not as usual: `resnet20 digits shortcut A`."""
    of_files = [network.name, network.sha256[:8], dataset.name, dataset.sha256[:8]]
    words = [*filter(None, of_files), *_unusual(network, ("name", "sha256"))]
    if (dataset.mean, dataset.std) == (IMAGENET_MEAN, IMAGENET_STD):
        return [*words, "ImageNet normalization", *_unusual(dataset, ("name", "sha256", "mean", "std"))]
    of_the_data = () if dataset.name in Dataset.IMAGES else ("mean", "std")
    return [*words, *_unusual(dataset, ("name", "sha256", *of_the_data))]


def training_words(sgd: Sgd) -> list[str]:
    """Epochs, batch and learning rate, and what else is not as usual: `30 epochs batch 128 lr 0.1 momentum 0.0`."""
    shown = [counted(sgd.epochs, "epoch"), f"batch {sgd.batch}", f"lr {flat(sgd)['lr']}"]
    return [str(sgd.precision), *shown, *_unusual(sgd, ("epochs", "batch", "lr", "precision"))]


def _unusual(value: Any, left_out: tuple[str, ...]) -> list[str]:
    """The fields that differ from their defaults, in words; a triple of equal numbers is one number."""
    usual = {item.name: item.default for item in dataclasses.fields(value)}
    if isinstance(value, Dataset):
        usual |= vars(Dataset(value.name, sha256=value.sha256))
    if isinstance(value, Network):
        usual["classes"] = 10
    words = []
    for name, content in flat(value).items():
        if name in left_out or getattr(value, name) == usual[name]:
            continue
        numbers = set(str(content).split(","))
        words.append(
            phrase(name, numbers.pop() if name in ("mean", "std") and len(numbers) == 1 else content)
        )
    return words


def width_words(bits: int | None) -> str:
    """A width in words; None is that of a first and a last layer which have the width of the others."""
    if bits is None:
        return "as the rest"
    return "float" if bits == FLOAT_BITS else f"{bits} bits"


def edge_words(bits: int | None, image_bits: int | None) -> str:
    """The width of the first and the last layer in words, and that of the image where it has its own."""
    words = width_words(bits)
    return words if image_bits in (None, bits) else f"{words} but image {width_words(image_bits)}"


def edges_of(method: Any, edge_bits: int | None) -> str:
    """How the first and the last layer are treated, in words: by the recipe where it says so, else by the method."""
    return edge_words(edge_bits, getattr(method, "image_bits", None)) if edge_bits else method.edges


def method_words(method: Any) -> list[str]:
    """What of a method is not as usual, but for its widths, in words: `train_mode=True` is `train mode`."""
    data = _data(method)
    usual = _data(type(method)())
    words = _data_words(method, usual, data) if data else ["not calibrated"] * bool(usual)
    if method.trains_by and method.calibrates_on:
        used = flat(type(method)().calibrates_on or Calibration())
        own = {name: value for name, value in flat(method.calibrates_on).items() if name != "seed"}
        words += [f"calibration {name} {value}" for name, value in own.items() if value != used[name]]
    return [*words, *unusual_fields(method)]


def unusual_fields(method: Any) -> list[str]:
    """The fields of a method that differ from their defaults, in words, but for its widths and its data."""
    words = []
    for item in dataclasses.fields(method):
        value = content_of(method, item)
        if item.name in ("weight_bits", "act_bits", *DATA_FIELDS) or value == default(item):
            continue
        shown = value if isinstance(value, (str, bool)) else _without_data(method, value)
        if (item.name, shown) != ("training", "train on"):  # a name has its epochs and rates already
            words.append(phrase(item.name, shown))
    return words


def _without_data(method: Any, value: Any) -> str:
    """A field's value in words, without the training of the method, which its name has already."""
    shown = text(value).replace(f"trains={text(method.trains_by)}", "").replace("(, ", "(").replace("()", "")
    return in_words(shown)


def _data(method: Any) -> Calibration | Sgd | None:
    """What the method needs of the training images."""
    needed: Calibration | Sgd | None = method.trains_by or method.calibrates_on
    return needed


def _data_words(method: Any, usual: Calibration | Sgd | None, data: Calibration | Sgd) -> list[str]:
    """What differs from the method's `usual` data, but for the seed, which every name ends with."""
    if isinstance(data, Sgd) and not isinstance(usual, Sgd):
        return training_words(data)
    before = flat(usual or Calibration())
    own = {item.name for item in dataclasses.fields(method)}
    words = [] if usual else ["calibrated"]
    for name, value in flat(data).items():
        if name == "seed" or value == before.get(name):
            continue
        if name in ("epochs", "images"):
            words.append(f"{value} {name}")
        else:  # a method's own field may be called as one of the training
            words.append(phrase(f"SGD {name}" if name in own else name, value))
    return words
