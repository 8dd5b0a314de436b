"""The files of PyTorch's PT2E and of OpenVINO, and whether they compute what the simulation computes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.export import agreement
from suite.export.agreement import Simulation
from suite.export.module_differences import first_difference
from suite.export.onnx_file import WORDS, could_clip, differs, onnx_file
from suite.export.request import Request
from suite.export.runtimes import openvino_kernels, openvino_model, why_not
from suite.formats import pt2e
from suite.formats.openvino_graph import for_openvino
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted

NOT_ON_OLDER = (
    "on x86 processors without VNNI its integer kernels clip their sums silently; for those use a recipe of 7-bit "
    "weights, or of 7-bit inputs"
)


def check(to: str) -> None:
    """Raise SuiteError unless the packages of this format are there. A missing C++ compiler costs PT2E but its
    comparison."""
    if to == "openvino" and (reason := why_not("openvino")):
        raise SuiteError(f"OpenVINO cannot be written: {reason}")
    if to == "pt2e" and "torchao" in (reason := why_not("inductor")):
        raise SuiteError(f"PT2E cannot be written: {reason}")


def pt2e_file(
    simulation: Simulation, about: dict[str, str], warnings: list[str]
) -> tuple[bytes, dict[str, Any]]:
    """The exported program of a simulation's network, and how far what is read from it agrees: as PyTorch computes it
    in float32, and compiled with freezing, which sums integers. Without a C++ compiler the latter is skipped, with the
    reason. Raises SuiteError as `onnx_file` does."""
    made = pt2e.program(simulation.model, simulation.example)
    content = pt2e.pt2e_file(made, about)
    read = pt2e.read(content)
    module = read.module()
    exact = simulation.beside(module)
    few = next(simulation.batches())
    differing = first_difference(simulation.model, read, few)
    if not agreement.within_bounds(exact):
        raise differs("PT2E", exact, differing)
    found: dict[str, Any] = {"same_arithmetic": exact, "first_difference": differing}
    clips = _warned(simulation.model, warnings)
    if reason := why_not("inductor"):
        warnings.append(f"its integer kernels were not tried: {reason}")
        found["integer_kernels"] = {"skipped": reason}
        return content, found
    run, kernels = pt2e.compiled(module, few)
    size = len(few)
    answers = [_filled(run, x, size) for x in simulation.batches()]
    integer = agreement.difference(simulation.logits, torch.cat(answers), exact["noise"])
    found["integer_kernels"] = integer | {"kernels": kernels}
    _judge("TorchInductor's", integer, clips, warnings)
    return content, found


def openvino_files(
    simulation: Simulation, request: Request, about: dict[str, str], warnings: list[str]
) -> tuple[bytes, bytes, dict[str, Any]]:
    """(.xml, .bin, how far OpenVINO agrees, which reads them again), made of the ONNX file, which is compared as well.
    OpenVINO has no switch for its integer kernels, so that only they are compared. Raises SuiteError as `onnx_file`
    does, and where there is no room."""
    import openvino

    content, found = onnx_file(simulation, request, about, [])
    read = openvino.Core().read_model(for_openvino(content))
    for name, value in about.items():
        read.set_rt_info(value, ["suite", name])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.xml"
        weights = file.with_suffix(".bin")
        try:
            openvino.save_model(read, str(file), compress_to_fp16=False)
            files = file.read_bytes(), weights.read_bytes()
        except (OSError, RuntimeError) as error:
            raise agreement.no_room("OpenVINO") from error
        found["openvino"] = integer = _answered_by_openvino(
            file, simulation, found["same_arithmetic"]["noise"]
        )
    _judge("OpenVINO's", integer, _warned(simulation.model, warnings), warnings)
    return *files, found


def _answered_by_openvino(file: Path, simulation: Simulation, noise: float) -> dict[str, Any]:
    """`difference` of what OpenVINO answers with this file, and its kernels."""
    batch = min(agreement.BATCH, len(simulation.logits))
    compiled = openvino_model(file, "float32", batch, torch.get_num_threads())
    inference = compiled.create_infer_request()

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(inference.infer({0: np.ascontiguousarray(x.numpy())})[0].copy())

    answers = torch.cat([_filled(run, x, batch) for x in simulation.batches()])
    return agreement.difference(simulation.logits, answers, noise) | {"kernels": openvino_kernels(compiled)}


def _filled(run: Any, x: Tensor, batch: int) -> Tensor:
    """The logits of `x`, filled up to a whole batch: what is compiled takes no other."""
    filled = torch.cat([x, x[-1:].expand(batch - len(x), -1, -1, -1)]).contiguous()
    result: Tensor = run(filled)[: len(x)]
    return result


def _warned(model: nn.Module, warnings: list[str]) -> tuple[str, ...]:
    clips = could_clip(model)
    if clips:
        warnings.append(
            f"the weights of {counted(len(clips), 'layer')} have more than 7 bits: {NOT_ON_OLDER}"
        )
    return clips


def _judge(whose: str, integer: dict[str, Any], clips: tuple[str, ...], warnings: list[str]) -> None:
    """Raise SuiteError where integer kernels leave the bounds, but for those of a processor that clips."""
    if agreement.within_bounds(integer):
        return
    apart = (
        f"on this machine's integer kernels, {whose}, {WORDS.format(**integer)} differ from the simulation"
    )
    if agreement.has_vnni() or not clips:
        raise SuiteError(f"{apart}; nothing was written. Please report it with the recipe")
    warnings.append(f"{apart}: it has no VNNI, as noted above")
