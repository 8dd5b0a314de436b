"""The ONNX file of a network, and whether it computes what the simulation computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.export import agreement, onnx_graph
from suite.export.everywhere import round_biases, traced
from suite.export.levels import integers_of, levels_of
from suite.export.wish import Wish
from suite.quantizers.integer import may_clip_pairs
from suite.quantizers.layers import LAYERS, Quantized
from suite.recipe.errors import SuiteError


def onnx_file(
    model: nn.Module, test: Images | Streamed, logits: Tensor, wish: Wish, warnings: list[str]
) -> tuple[bytes, dict[str, Any]]:
    """The ONNX file of `model`, whose logits for the test images are given, and how far it agrees; what a user should
    know is added to `warnings`. Raises SuiteError where it does not compute what the simulation computes."""
    example = next(agreement.batches(test, None))[:2]
    made = onnx_graph.onnx_model(model, example, wish.unsigned_weights)
    content = made.SerializeToString()
    exact, integer = (
        agreement.difference(logits, agreement.answered(content, test, wish.images, kernels))
        for kernels in (False, True)
    )
    first = agreement.first_difference(
        made, model, next(agreement.batches(test, min(agreement.BATCH, len(test))))
    )
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
