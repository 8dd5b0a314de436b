"""`suite export KEY`: rebuild, write, compare, and say what was written."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.export import agreement, onnx_graph, tensors
from suite.export.everywhere import integer_everywhere, round_biases, traced
from suite.export.levels import integers_of, levels_of, refused
from suite.export.rebuild import CPU, Rebuilt, rebuilt
from suite.quantizers.integer import may_clip_pairs
from suite.quantizers.layers import LAYERS, Quantized
from suite.quantizers.quantizer import Quantizer
from suite.recipe import Stage
from suite.recipe.errors import SuiteError, check_choice
from suite.record.files import Folders, write_bytes, write_json
from suite.record.provenance import provenance

Format = Literal["onnx", "state_dict", "safetensors"]
SUFFIX: dict[str, str] = {"onnx": ".onnx", "state_dict": ".pt", "safetensors": ".safetensors"}
FORMAT = 1
OTHER_ANSWERS = 0.01
"""The part of the test images that a rebuilt network may answer otherwise than its run did: on another processor
float32 sums come in another order."""

CONVENTIONS = {
    False: "the recipe's own: what its layers multiply is quantized; additions and pooling compute in float32",
    True: "integers everywhere: also both operands and the sum of each addition, and what is pooled; BatchNorm is "
    "folded into the scales of the weights, and biases are integers",
}


@dataclass(frozen=True)
class Wish:
    """What to write. images: of the test split that are compared, None for all. unsigned_weights: uint8 with the zero
    point 128 instead of int8, which is right without VNNI too."""

    to: Format = "onnx"
    out: Path | None = None
    integer_everywhere: bool = False
    unsigned_weights: bool = False
    images: int | None = None

    def __post_init__(self) -> None:
        check_choice("--to", self.to, get_args(Format))
        if self.images is not None and self.images < 1:
            raise SuiteError(f"--images must be 1 or more, got {self.images}")
        if self.unsigned_weights and self.to != "onnx":
            raise SuiteError("--unsigned-weights is for --to onnx alone")

    def file(self, key: str) -> Path:
        """Where it goes. Raises SuiteError where that is no place for it."""
        file = self.out or Path(f"{key}{SUFFIX[self.to]}")
        if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
            raise SuiteError(
                f"{file.parent} is no folder that can be written; make it, or give another --out"
            )
        if file.is_dir() or file.suffix == ".json":
            raise SuiteError(
                f"--out {file} is a folder or ends in .json, the name of the record; name a file"
            )
        return file


def export(stage: Stage, folders: Folders, wish: Wish) -> tuple[Path, Path, dict[str, Any]]:
    """Write the network and, beside it, its record as JSON; both files and the record.

    Raises SuiteError where the recipe is not done or on no grid, a package is missing, the rebuilt network does not
    answer as its run did, or the file does not compute what the simulation computes. Nothing is written then.
    """
    file = wish.file(stage.key)
    if wish.to == "onnx":
        check_installed()
    source = rebuilt(stage, folders)
    check_on_grids(source)
    test = source.images("test")
    logits = agreement.simulated(source.model, test, wish.images)
    found = {"rebuilt": _compared_with_run(source, test, logits)}
    model, joints = source.model, tuple[str, ...]()
    if wish.integer_everywhere:
        model, joints = integer_everywhere(model, source.calibration())
        found["integer_everywhere"] = agreement.difference(
            logits, everywhere := agreement.simulated(model, test, wish.images)
        )
        logits = everywhere
    warnings: list[str] = []
    if wish.to == "onnx":
        content, compared = _onnx(model, test, logits, wish, warnings)
        found |= compared
    elif wish.to == "state_dict":
        content = tensors.state_dict_file(model)
    else:
        content = tensors.safetensors_file(model, {"key": stage.key, "name": stage.name})
    record = {
        **_about(source, file, content, wish),
        "simulated_top1": _top1(test, logits),
        "agreement": found,
        "warnings": warnings,
        "layers": layers(model),
        "joints": list(joints),
    }
    return file, _write(content, record, file), record


def check_installed() -> None:
    """Raise SuiteError unless the packages of the extra `export` are there."""
    lacking = [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]
    if lacking:
        raise SuiteError(
            f"ONNX needs {', '.join(lacking)}, not installed here; pip install 'quantization-suite[export]'"
        )


def check_on_grids(source: Rebuilt) -> None:
    """Raise SuiteError, naming them, for layers whose levels are no grid, and for a network without any."""
    if reasons := refused(source.model):
        named = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:5])
        more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        raise SuiteError(
            f"{source.recipe.name} cannot be exported, since the levels of {len(reasons)} of its layers are no "
            f"integers times a scale: {named}{more}; export a recipe of evenly spaced levels, such as mse or lsq"
        )
    modules = list(source.model.modules())
    rounded = any(isinstance(one, LAYERS) and integers_of(one) is not None for one in modules)
    if not rounded and not any(isinstance(one, Quantizer) for one in modules):
        raise SuiteError(f"{source.recipe.name} rounds no weight and no input; there is nothing to export")


def _compared_with_run(source: Rebuilt, test: Images | Streamed, logits: Tensor) -> dict[str, Any]:
    """How many images the rebuilt network has right or wrong otherwise than the run recorded."""
    packed = source.outcome.get("correct")
    if not isinstance(packed, str):
        return {"images": 0}
    recorded = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8))[: len(logits)].astype(bool)
    right = (logits.argmax(1) == test.labels[: len(logits)].cpu()).numpy()
    other = int((right != recorded).sum())
    if other > max(3, OTHER_ANSWERS * len(logits)):
        raise SuiteError(
            f"{source.recipe.name}, made again, has {other} of {len(logits)} test images right or wrong otherwise "
            f"than its run; code, data or checkpoint changed since: launch the sweep again"
        )
    return {"images": len(logits), "other_answers": other}


def _onnx(
    model: nn.Module, test: Images | Streamed, logits: Tensor, wish: Wish, warnings: list[str]
) -> tuple[bytes, dict[str, Any]]:
    example = next(agreement.batches(test, 2))
    made = onnx_graph.onnx_model(model, example, wish.unsigned_weights)
    content = made.SerializeToString()
    exact, integer = (
        agreement.difference(logits, agreement.answered(content, test, wish.images, kernels))
        for kernels in (False, True)
    )
    first = agreement.first_difference(made, model, next(agreement.batches(test, agreement.BATCH)))
    found = {
        "same_arithmetic": exact,
        "integer_kernels": integer | {"kernels": agreement.kernels(content)},
        "first_difference": first,
    }
    words = "{flips} of {images} answers and logits by {mean_difference:.3g} in the mean"
    if not agreement.within_bounds(exact):
        where = f"; the first layer that differs is {first['layer']}" if first else ""
        raise SuiteError(
            f"the ONNX file does not compute what the simulation computes: {words.format(**exact)} differ, where "
            f"1 in {agreement.ONE_FLIP_IN} and {agreement.MEAN_DIFFERENCE} may{where}; nothing was written. Please "
            f"report it with the recipe"
        )
    clips = () if wish.unsigned_weights else could_clip(model)
    if clips:
        warnings.append(
            f"the weights of {len(clips)} layers have more than 7 bits: on x86 processors without VNNI, integer "
            f"kernels clip their sums silently. For those use --unsigned-weights, or a recipe of 7-bit weights"
        )
    if not agreement.within_bounds(integer):
        apart = f"on this machine's integer kernels {words.format(**integer)} differ from the simulation"
        if not agreement.has_vnni() and clips:
            warnings.append(f"{apart}: it has no VNNI, as said above")
        elif wish.integer_everywhere or not _by_biases(model, test, content, wish):
            raise SuiteError(f"{apart}; nothing was written. Please report it with the recipe")
        else:
            warnings.append(
                f"{apart}: they take biases as integers at the product of the scales of input and weight, which is "
                f"coarse at these widths; a simulation that does so too agrees"
            )
    return content, found


def _by_biases(model: nn.Module, test: Images | Streamed, content: bytes, wish: Wish) -> bool:
    """Whether integer kernels agree with a simulation whose biases are rounded as theirs are."""
    try:
        rounded = round_biases(traced(model))
    except SuiteError:  # torch.fx cannot trace it
        return False
    logits = agreement.simulated(rounded, test, wish.images)
    found = agreement.answered(content, test, wish.images, True)
    return agreement.within_bounds(agreement.difference(logits, found))


def could_clip(model: nn.Module) -> tuple[str, ...]:
    """The layers whose 8-bit products could leave 16 bits in pairs."""
    found = []
    for name, module in model.named_modules():
        weight = integers_of(module) if isinstance(module, LAYERS) else None
        if weight is not None and weight.bits <= 8:
            owner = model.get_submodule(name.removesuffix(".layer"))
            grid = (
                levels_of(owner.input) if isinstance(owner, Quantized) and owner.input is not None else None
            )
            if may_clip_pairs(weight.q, grid.quant_max - min(grid.quant_min, 0) if grid else 255):
                found.append(name.removesuffix(".layer"))
    return tuple(found)


def layers(model: nn.Module) -> list[dict[str, Any]]:
    """Width, scale and zero point of each weight and input, as they are stored."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LAYERS) and (weight := integers_of(module)) is not None:
            _, zero = onnx_graph.stored(weight)
            entry = {"bits": weight.bits, "axis": 0 if weight.scale.dim() else None}
            entry |= {"scale": weight.scale.tolist(), "zero_point": zero.tolist()}
            found.setdefault(name.removesuffix(".layer"), {})["weight"] = entry
        elif isinstance(module, Quantizer):
            grid = levels_of(module)
            ends = {"quant_min": grid.quant_min, "quant_max": grid.quant_max, "bits": grid.bits}
            entry = {**ends, "scale": float(grid.scale), "zero_point": grid.zero_point}
            found.setdefault(name.removesuffix(".input"), {})["input"] = entry
    return [{"name": name, **entry} for name, entry in found.items()]


def _top1(test: Images | Streamed, logits: Tensor) -> float:
    return 100 * float((logits.argmax(1) == test.labels[: len(logits)].cpu()).double().mean())


def _about(source: Rebuilt, file: Path, content: bytes, wish: Wish) -> dict[str, Any]:
    recipe, data = source.recipe, source.recipe.start.dataset
    facts = provenance(CPU)
    versions = dict(facts["versions"])
    for name in ("onnx", "onnxruntime", "safetensors"):
        if importlib.util.find_spec(name):
            versions[name] = metadata.version(name)
    kept = {name: facts[name] for name in ("commit", "dirty", "device", "cpu_flags")}
    return {
        "format": FORMAT,
        "file": file.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "to": wish.to,
        "opset": onnx_graph.OPSET if wish.to == "onnx" else None,
        "key": recipe.key,
        "name": recipe.name,
        "params": recipe.params,
        "convention": CONVENTIONS[wish.integer_everywhere],
        "images": {
            "shape": ["batch", data.channels, data.size, data.size],
            "mean": data.mean,
            "std": data.std,
        },
        "top1": source.outcome.get("top1"),
        **kept,
        "versions": versions,
        "torch_threads": torch.get_num_threads(),
    }


def _write(content: bytes, record: dict[str, Any], file: Path) -> Path:
    """Both files, each whole or not at all; the file of the record. Raises SuiteError where there is no room."""
    beside = file.with_suffix(".json")
    written = False
    try:
        write_bytes(content, file)
        written = True
        write_json(record, beside)
    except OSError as error:
        if written:
            file.unlink(missing_ok=True)
        raise SuiteError(
            f"{file} cannot be written: {error.strerror}; free some space, or give another --out"
        ) from error
    return beside
