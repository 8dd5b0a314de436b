"""How far every runtime that is installed agrees with the simulation, whatever the format of the file.

A user takes the file elsewhere, and each runtime sums in its own way. What a runtime does not take, or what takes long
and was not asked for, is skipped with its reason; nothing here stops an export.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from suite.export import agreement
from suite.export.agreement import Simulation
from suite.export.runtimes import PACKAGES, Exported, engine, why_not
from suite.recipe.errors import SuiteError

IMAGES, SIDE, LEAST = 2000, 32, 100
"""On how many images a runtime is tried at most, evenly spread: as many as the bound of one flip in 2,000 needs, of
this side; of larger ones fewer, so that it takes seconds, but LEAST."""

MEASURED = {
    "onnx": {"onnxruntime": "integer_kernels"},
    "openvino": {"onnxruntime": "integer_kernels", "openvino": "openvino"},
    "pt2e": {"inductor": "integer_kernels"},
}
"""Of each format the runtimes that its own comparison has measured, and under which name."""


def probed(
    simulation: Simulation, to: str, compared: Mapping[str, Any], compiled: bool
) -> dict[str, dict[str, Any]]:
    """By runtime, what `agreement.difference` counts, whether that is within the bounds, and its kernels; or why it
    was skipped. compared: what the format's own comparison found. compiled: whether TorchInductor, which takes a
    minute to compile, is tried too."""
    found: dict[str, dict[str, Any]] = {}
    network = Exported("", "this network", simulation.model, simulation.example, int8=True)
    most = _most(simulation)
    images = torch.cat(list(agreement.batches(simulation.test, most)))
    reference = simulation.logits
    if most < len(reference):
        reference = agreement.simulated(simulation.model, simulation.test, most)
    for runtime in PACKAGES:
        measured = compared.get(MEASURED.get(to, {}).get(runtime, ""))
        if measured is not None:
            found[runtime] = _judged(measured)
        elif reason := _why_not(runtime, simulation, compiled):
            found[runtime] = {"skipped": reason}
        else:
            noise = compared.get("same_arithmetic", {}).get("noise", 0.0)
            found[runtime] = _tried(network, runtime, images, reference, noise)
    return found


def _most(simulation: Simulation) -> int:
    pixels = simulation.example[0, 0].numel()
    return min(len(simulation.logits), max(LEAST, min(IMAGES, IMAGES * SIDE**2 // pixels)))


def _why_not(runtime: str, simulation: Simulation, compiled: bool) -> str:
    if reason := why_not(runtime):
        return reason
    if runtime == "inductor" and not compiled:
        return "it takes a minute to compile; --compiled tries it"
    if runtime == "torch_ao" and not isinstance(simulation.model, fx.GraphModule):
        return "it computes networks of integers everywhere alone; see --integer-everywhere"
    return ""


def _tried(
    network: Exported, runtime: str, images: torch.Tensor, reference: torch.Tensor, noise: float = 0.0
) -> dict[str, Any]:
    batch = min(agreement.BATCH, len(images))
    try:
        made = engine(network, runtime, "int8", batch, torch.get_num_threads())
        logits = torch.from_numpy(made.logits(images))
    except SuiteError as error:
        return {"skipped": str(error)}
    except Exception as error:  # some kernels say only when they compute what they do not take
        return {"skipped": f"{type(error).__name__}: {error}"}
    return _judged(agreement.difference(reference, logits, noise) | {"kernels": made.kernels})


def _judged(measured: dict[str, Any]) -> dict[str, Any]:
    if "flips" not in measured:
        return dict(measured)
    return {**measured, "within_bounds": agreement.within_bounds(measured)}


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each runtime, as `suite export` prints it."""
    words = []
    for runtime, one in found.items():
        if "skipped" in one:
            words.append(f"{runtime}: skipped, {one['skipped']}")
        else:
            beyond = "" if one["within_bounds"] else "; beyond the bounds"
            words.append(
                f"{runtime}: {one['flips']} of {one['images']} answers differ from the simulation, logits by "
                f"{one['mean_difference']:.3g} in the mean{beyond}"
            )
    return words
