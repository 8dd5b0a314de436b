"""What `suite export KEY` is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from suite.recipe.errors import SuiteError, check_choice

Format = Literal["onnx", "pt2e", "openvino", "state_dict", "safetensors"]
SUFFIX: dict[str, str] = {
    "onnx": ".onnx",
    "pt2e": ".pt2",
    "openvino": ".xml",
    "state_dict": ".pt",
    "safetensors": ".safetensors",
}

CONVENTIONS = {
    False: "the recipe's own: what its layers multiply is quantized; additions and pooling compute in float32",
    True: "integers everywhere: also both operands and the sum of each addition, and what is pooled; BatchNorm is "
    "folded into the scales of the weights, and biases are integers",
}


@dataclass(frozen=True)
class Request:
    """What to write. images: of the test split that are compared, evenly spread, None for all. unsigned_weights:
    uint8 with the zero point 128 instead of int8, which is right without VNNI too; None: where this machine has
    none, of the layers whose sums it would clip. probes: also compare every other runtime that is installed, and with
    `compiled` TorchInductor, which takes a minute.

    Raises SuiteError for values that cannot be asked for, or not together.
    """

    to: Format = "onnx"
    out: Path | None = None
    integer_everywhere: bool = False
    unsigned_weights: bool | None = None
    images: int | None = None
    probes: bool = True
    compiled: bool = False

    def __post_init__(self) -> None:
        check_choice("--to", self.to, get_args(Format))
        if self.images is not None and self.images < 1:
            raise SuiteError(f"--images must be 1 or more, got {self.images}")
        if self.unsigned_weights is not None and self.to != "onnx":
            raise SuiteError("--unsigned-weights and --signed-weights are for --to onnx alone")

    def file(self, key: str) -> Path:
        """Where it goes. Raises SuiteError where that is no place for it, or for a file that is written beside it."""
        file = self.out or Path(f"{key}{SUFFIX[self.to]}")
        if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
            raise SuiteError(
                f"{file.parent} is no folder that can be written; make it, or give another --out"
            )
        check_replaceable(file)
        if self.to == "openvino" and file.suffix != ".xml":
            raise SuiteError(f"--out {file} must end in .xml: OpenVINO finds the weights, .bin, by that name")
        if file.suffix == ".json":
            raise SuiteError(f"--out {file} ends in .json, the name of the record; give another ending")
        check_replaceable(record_of(file))
        if self.to == "openvino":
            check_replaceable(file.with_suffix(".bin"))
        return file


def record_of(file: Path) -> Path:
    """The record of an exported file, beside it; of its whole name, since one recipe has a file of each format."""
    return file.with_name(f"{file.name}.json")


def check_replaceable(file: Path) -> None:
    """Raise SuiteError where something is there that is no file, such as a folder or a device: an export would remove
    it, or could not."""
    if file.exists() and not file.is_file():
        raise SuiteError(f"{file} is there, and is no regular file; give another --out, a file's name")
