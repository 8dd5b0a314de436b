"""A quantized network as PyTorch's own exported program (PT2E): stored integers between quantize and dequantize.

The scales are the recipe's; torchao's quantizers and observers have no part in it. Compiled with freezing,
TorchInductor sums integers by oneDNN; without freezing it computes the same file in float32.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from suite.formats.exporter_errors import quiet, why_not_exported
from suite.formats.onnx_graph import stored
from suite.formats.operators import StoredWeight, with_operators
from suite.integers.levels import Integers, Levels
from suite.recipe.errors import SuiteError, in_a_line

INTEGER_LAYERS = {
    "convolutions": "qconv_weight_prepack_matcher_count",
    "linear layers": "qlinear_weight_prepack_matcher_count",
}
"""TorchInductor's counters of the layers whose sums are of integers."""


def operators() -> Any:
    """torch.ops.quantized_decomposed, whose operators torchao's import makes known."""
    with quiet():  # of its kernels for GPUs that are not here
        import torchao.quantization.pt2e  # noqa: F401
    return torch.ops.quantized_decomposed


class QuantizeInput(nn.Module):
    """quantize and dequantize of a whole tensor: uint8, a signed grid moved up by half; int32 beyond 8 bits."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        wide = levels.quant_max - levels.quant_min > 255
        moved = 128 if levels.quant_min < 0 and not wide else 0
        if moved and (levels.quant_min < -128 or levels.quant_max > 127):
            moved = -levels.quant_min
        self.dtype = torch.int32 if wide else torch.uint8
        ends = levels.zero_point + moved, levels.quant_min + moved, levels.quant_max + moved
        self.how = (float(levels.scale), *ends, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """`x` rounded."""
        ops = torch.ops.quantized_decomposed
        result: Tensor = ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *self.how), *self.how)
        return result


class Dequantized(StoredWeight):
    """Stored integers behind dequantize, with a scale for each channel, as kernels of integers take them."""

    def weight(self) -> Tensor:
        """float32, of the layer's shape."""
        info = torch.iinfo(self.q.dtype)
        given = self.q, self.scale, self.zero_point, 0, info.min, info.max, self.q.dtype
        weight: Tensor = torch.ops.quantized_decomposed.dequantize_per_channel(*given)
        return weight


def dequantized(layer: nn.Module, input: nn.Module | None, weight: Integers) -> Dequantized:
    """`layer` with its stored `weight`."""
    q, zero_point = stored(weight)
    scale, zero = (one.reshape(-1).expand(len(q)).clone() for one in (weight.scale, zero_point))
    return Dequantized(layer, input, q, scale, zero.long())


def prepared(model: nn.Module) -> nn.Module:
    """A copy of `model` with every quantizer and rounded weight as operators of PT2E."""
    operators()
    made = with_operators(model, QuantizeInput, lambda _, *stored: dequantized(*stored))
    return made.requires_grad_(False)


def program(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """`model`, a quantized network of which all is on grids, as a program of a dynamic batch.

    example: float32 [2 or more, channels, height, width]. Raises SuiteError where torch.export cannot,
    with the layer and the reason.
    """
    ready = prepared(model)
    try:
        with quiet():
            return torch.export.export(ready, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # of whatever the network's forward does with a stand-in for its input
        raise SuiteError(why_not_exported(error, ready, model, example)) from error


def pt2e_file(made: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    """torch.export.save of it, for torch.export.load after `import torchao.quantization.pt2e`, with `about` as its
    extra file about.json."""
    stream = io.BytesIO()
    torch.export.save(made, stream, extra_files={"about.json": json.dumps(about)})
    return stream.getvalue()


def read(content: bytes) -> torch.export.ExportedProgram:
    """The program of a file's content."""
    return torch.export.load(io.BytesIO(content))


def compiled(model: nn.Module, example: Tensor) -> tuple[Callable[[Tensor], Tensor], dict[str, int]]:
    """`model` compiled by TorchInductor with freezing, for batches as large as `example`, and how many of its layers
    sum integers, by kind. Raises SuiteError where it cannot be compiled, as without a C++ compiler or room."""
    import torch._inductor.config as config
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    made = torch.compile(model, dynamic=False)
    before = {name: counters["inductor"][counter] for name, counter in INTEGER_LAYERS.items()}

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = made(x)
            return result

    try:
        # From its cache it would not say which layers became integers.
        with config.patch(freezing=True, fx_graph_cache=False):
            run(example)
    except Exception as error:
        raise SuiteError(
            f"TorchInductor cannot compile this network: {in_a_line(error)}; it needs a C++ compiler, such as g++, "
            f"and room in the folder for temporary files (TMPDIR)"
        ) from error
    found = {name: counters["inductor"][counter] - before[name] for name, counter in INTEGER_LAYERS.items()}
    return run, {name: count for name, count in found.items() if count}
