"""`suite export KEY`: rebuild, write, compare, and say what was written."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.export import agreement, probes, runtime_files
from suite.export.agreement import Simulation
from suite.export.module_differences import first_difference
from suite.export.onnx_file import differs, onnx_file
from suite.export.request import CONVENTIONS, Request, record_of
from suite.export.runtimes import check_installed, versions
from suite.formats import onnx_graph, tensors
from suite.formats.rebuild import Rebuilt, check_on_grids, rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.integers.levels import integers_of, levels_of
from suite.quantizers.layers import LAYERS
from suite.quantizers.quantizer import Quantizer
from suite.ranks import CPU
from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.files import Folders, write_bytes, write_json
from suite.record.provenance import provenance

FORMAT = 1
OTHER_ANSWERS = 0.01
"""The part of the test images that a rebuilt network may answer otherwise than its run did: on another processor
float32 sums come in another order."""


def export(stage: Stage, folders: Folders, request: Request) -> tuple[Path, Path, dict[str, Any]]:
    """Write the network and, beside it, its record as JSON; both files and the record.

    Raises SuiteError where the recipe is not done or on no grid, a package is missing, the rebuilt network does not
    answer as its run did, or the file does not compute what the simulation computes. Nothing is written then.
    """
    file = request.file(stage.key)
    if request.to in ("onnx", "openvino"):
        check_installed()
    runtime_files.check(request.to)
    source = rebuilt(stage, folders)
    check_on_grids(source)
    simulation = Simulation.of(source.model, source.images("test"), request.images)
    found = {"rebuilt": compared_with_run(source, simulation)}
    joints = tuple[str, ...]()
    if request.integer_everywhere:
        recipes_own = simulation
        model, joints = integer_everywhere(source.model, source.calibration())
        simulation = Simulation.of(model, recipes_own.test, request.images)
        found["integer_everywhere"] = agreement.difference(recipes_own.logits, simulation.logits)
    warnings: list[str] = []
    contents, compared = _contents(stage, simulation, request, warnings)
    found |= compared
    if request.probes:
        found["runtimes"] = probes.probed(simulation, request.to, compared, request.compiled)
    if words := agreement.few_images(len(simulation.logits)):
        warnings.append(words)
    record = {
        **_about(source, file, contents[file.suffix], request),
        "simulated_top1": 100 * float(_right(simulation).double().mean()),
        "agreement": found,
        "warnings": warnings,
        "layers": layers(simulation.model, contents[file.suffix] if request.to == "onnx" else b""),
        "joints": list(joints),
    }
    return file, _write(contents, record, file), record


def _contents(
    stage: Stage, simulation: Simulation, request: Request, warnings: list[str]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """(the files by their ending, what was compared)."""
    suffix = request.file(stage.key).suffix
    about = {"key": stage.key, "name": stage.name, "convention": CONVENTIONS[request.integer_everywhere]}
    if request.to == "onnx":
        content, compared = onnx_file(simulation, request, about, warnings)
    elif request.to == "pt2e":
        content, compared = runtime_files.pt2e_file(simulation, about, warnings)
    elif request.to == "openvino":
        content, weights, compared = runtime_files.openvino_files(simulation, request, about, warnings)
        return {suffix: content, ".bin": weights}, compared
    else:
        content, compared = _tensors(simulation, request.to, about)
    return {suffix: content}, compared


def _tensors(simulation: Simulation, to: str, about: dict[str, str]) -> tuple[bytes, dict[str, Any]]:
    """The file of state_dict or safetensors, and how far the network that is read from it agrees."""
    model = simulation.model
    is_safe = to == "safetensors"
    content, read = (
        tensors.safetensors_file(model, about) if is_safe else tensors.state_dict_file(model, about)
    )
    exact = simulation.beside(read)
    first = first_difference(model, read, next(simulation.batches()))
    if not agreement.within_bounds(exact):
        raise differs(to, exact, first)
    return content, {"same_arithmetic": exact, "first_difference": first}


def compared_with_run(source: Rebuilt, simulation: Simulation) -> dict[str, Any]:
    """How many images the rebuilt network has right or wrong otherwise than the run recorded.

    Raises SuiteError beyond OTHER_ANSWERS of them.
    """
    packed = source.outcome.get("correct")
    if not isinstance(packed, str):
        return {"images": 0}
    recorded = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8))
    recorded = recorded[: len(simulation.test)].astype(bool)
    recorded = recorded[agreement.every(simulation.test, simulation.most)]
    other, images = int((_right(simulation).numpy() != recorded).sum()), len(simulation.logits)
    if other > max(3, OTHER_ANSWERS * images):
        raise SuiteError(
            f"{source.recipe.name}, made again, has {other} of {counted(images, 'test image')} right or wrong "
            f"otherwise than its run; code, data or checkpoint changed since: launch the sweep again"
        )
    return {"images": images, "other_answers": other}


def _right(simulation: Simulation) -> Tensor:
    """bool [n]: which images it answers right."""
    labels = simulation.test.labels[agreement.every(simulation.test, simulation.most)].cpu()
    return simulation.logits.argmax(1) == labels


def layers(model: nn.Module, onnx: bytes = b"") -> list[dict[str, Any]]:
    """Width, scale and zero point of each weight and input, as they are stored: in this ONNX file, whose weights may
    be unsigned or int4, else as int8 or int16."""
    in_file = onnx_graph.stored_weights(onnx) if onnx else {}
    found: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LAYERS) and (weight := integers_of(module)) is not None:
            q, zero = onnx_graph.stored(weight)
            plain = name.removesuffix(".layer")
            entry: dict[str, Any] = {"bits": weight.bits, "axis": 0 if weight.scale.dim() else None}
            entry |= {"scale": weight.scale.tolist(), "zero_point": zero.tolist()}
            entry |= {"type": str(q.dtype).removeprefix("torch.")} | in_file.get(plain, {})
            found.setdefault(plain, {})["weight"] = entry
        elif isinstance(module, Quantizer):
            grid = levels_of(module)
            ends = {"quant_min": grid.quant_min, "quant_max": grid.quant_max, "bits": grid.bits}
            entry = {**ends, "scale": float(grid.scale), "zero_point": grid.zero_point}
            found.setdefault(name.removesuffix(".input"), {})["input"] = entry
    return [{"name": name, **entry} for name, entry in found.items()]


def _about(source: Rebuilt, file: Path, content: bytes, request: Request) -> dict[str, Any]:
    recipe, data = source.recipe, source.recipe.start.dataset
    facts = provenance(CPU)
    kept = {name: facts[name] for name in ("commit", "dirty", "device", "cpu_flags")}
    return {
        "format": FORMAT,
        "file": file.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "to": request.to,
        "opset": onnx_graph.OPSET if request.to in ("onnx", "openvino") else None,
        "key": recipe.key,
        "name": recipe.name,
        "params": recipe.params,
        "convention": CONVENTIONS[request.integer_everywhere],
        "images": {
            "shape": ["batch", data.channels, data.size, data.size],
            "mean": data.mean,
            "std": data.std,
        },
        "top1": source.outcome.get("top1"),
        **kept,
        "versions": versions(facts),
        "torch_threads": torch.get_num_threads(),
    }


def _write(contents: dict[str, bytes], record: dict[str, Any], file: Path) -> Path:
    """All files, each whole, or none, so that an export that was there stays; the file of the record. Raises
    SuiteError where there is no room."""
    beside = record_of(file)
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=f"{file.name}.") as folder:
            for suffix, content in contents.items():
                write_bytes(content, Path(folder) / file.with_suffix(suffix).name)
            write_json(record, Path(folder) / beside.name)
            names = [*(file.with_suffix(suffix).name for suffix in contents), beside.name]
            for name in names:  # the record last: its checksum is that of the file
                (Path(folder) / name).replace(file.with_name(name))
    except OSError as error:
        raise SuiteError(
            f"{file} cannot be written: {error.strerror}; free some space, or give another --out"
        ) from error
    return beside
