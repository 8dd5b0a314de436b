"""The ONNX file of a network, and whether it computes what the simulation computes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from suite.arithmetic.integer import may_clip_pairs
from suite.export import agreement
from suite.export.agreement import Simulation
from suite.export.request import Request
from suite.formats import onnx_graph
from suite.integers.everywhere import round_biases, traced
from suite.integers.levels import integers_of, levels_of
from suite.quantizers.layers import LAYERS, Quantized
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted

if TYPE_CHECKING:
    from onnx import ModelProto

WORDS = "{flips} of {images} answers and logits by {mean_difference:.3g} in the mean"


def differs(what: str, exact: dict[str, Any], first: dict[str, Any] | None) -> SuiteError:
    """The error of a file that leaves the bounds in the arithmetic of the simulation, `first` where its integers first
    differ."""
    where = f"; the first layer that differs is {first['layer']}" if first else ""
    return SuiteError(
        f"the {what} file does not compute what the simulation computes: {WORDS.format(**exact)} differ, where "
        f"1 in {agreement.ONE_FLIP_IN} and {agreement.MEAN_DIFFERENCE} may{where}; nothing was written. Please "
        f"report it with the recipe"
    )


def onnx_file(
    simulation: Simulation, request: Request, about: dict[str, str], warnings: list[str]
) -> tuple[bytes, dict[str, Any]]:
    """The ONNX file of a simulation's network, and how far it agrees; `about` becomes its metadata, and what a user
    should know is added to `warnings`. Raises SuiteError where it does not compute what the simulation computes."""
    from onnx import helper

    clips = could_clip(simulation.model)
    unsigned = _unsigned(request, clips, warnings)
    every = [name.removesuffix(".layer") for name, _ in simulation.model.named_modules()]
    chosen: Collection[str] = () if not unsigned else every if request.unsigned_weights else clips
    made = onnx_graph.onnx_model(simulation.model, simulation.example, chosen)
    helper.set_model_props(made, about)
    return made.SerializeToString(), compared_onnx(made, simulation, () if unsigned else clips, warnings)


def compared_onnx(
    made: ModelProto, simulation: Simulation, clips: Collection[str], warnings: list[str]
) -> dict[str, Any]:
    """How far an ONNX file agrees with the simulation, in both arithmetics. clips: the layers whose signed weights are
    too wide for integer kernels without VNNI. Raises SuiteError as `onnx_file` does."""
    content = made.SerializeToString()
    plain, theirs = (agreement.answered(content, simulation.batches(), kernels) for kernels in (False, True))
    exact = agreement.difference(simulation.logits, plain)
    noise = exact["noise"]
    integer = agreement.difference(simulation.logits, theirs, noise)
    few = min(agreement.BATCH, len(simulation.test))
    x = next(agreement.batches(simulation.test, few))
    first = agreement.first_difference(made, simulation.model, x)
    found: dict[str, Any] = {
        "same_arithmetic": exact,
        "integer_kernels": integer | {"kernels": agreement.kernels(result := agreement.optimized(content))},
        "first_difference": first,
    }
    if not agreement.within_bounds(exact):
        raise differs("ONNX", exact, first)
    if clips:
        warnings.append(
            f"the weights of {counted(len(clips), 'layer')} have more than 7 bits: on x86 processors without VNNI, "
            f"integer kernels clip their sums silently. For those use --unsigned-weights, or a recipe of 7-bit weights"
        )
    if not agreement.within_bounds(integer):
        apart = f"on this machine's integer kernels {WORDS.format(**integer)} differ from the simulation"
        if (at := agreement.first_clipped(made, simulation.model, x)) is not None:
            found["integer_kernels"]["first_difference"] = at
            apart += f"; the first input that differs is that of {at['layer']}"
        if not agreement.has_vnni() and clips:
            warnings.append(f"{apart}: it has no VNNI, as noted above")
            return found
        named = agreement.layers_with_integer_biases(made, result)
        biases = _with_rounded_biases(simulation, named)
        as_theirs = None if biases is None else agreement.difference(biases, theirs, noise)
        if as_theirs is None or not agreement.within_bounds(as_theirs):
            raise SuiteError(f"{apart}; nothing was written. Please report it with the recipe")
        found["integer_kernels_and_biases"] = as_theirs | {"layers": sorted(named)}
        warnings.append(
            f"{apart}: they take the biases of {counted(len(named), 'layer')} as integers at the product of the "
            f"scales of input and weight; a simulation that does so too agrees"
        )
    return found


def _unsigned(request: Request, clips: Collection[str], warnings: list[str]) -> bool:
    """Whether weights are stored unsigned: as was asked for, else where this machine would clip sums otherwise."""
    if request.unsigned_weights is not None:
        return request.unsigned_weights
    if agreement.has_vnni() or not clips:
        return False
    warnings.append(
        f"the weights of {counted(len(clips), 'layer')} are stored unsigned: this processor has no VNNI, and would "
        f"clip their sums otherwise; --signed-weights stores them as int8"
    )
    return True


def _with_rounded_biases(simulation: Simulation, named: Collection[str]) -> Tensor | None:
    """The logits of a simulation whose biases, of the named layers, are rounded as integer kernels do; None where
    there are none."""
    if not named:
        return None
    try:
        rounded = round_biases(traced(simulation.model), named)
    except SuiteError:  # torch.fx cannot trace it
        return None
    return agreement.simulated(rounded, simulation.test, simulation.most)


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
