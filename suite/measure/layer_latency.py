"""`suite latency KEY --layers`: how long each layer takes by itself in ONNX Runtime, in 8-bit integers and in float.

A layer is one operator of random numbers, on which the time of no kernel depends: QLinearConv or Conv, QGemm or Gemm.
Layers of one shape are measured once. Conversions between layers are not in it, nor what a runtime fuses. Processors
have no kernels of fewer than 8 bits, so that a layer of 4 bits takes the time of one of 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.export import agreement
from suite.export.runtimes import check_installed
from suite.measure.timing import disturbed, interleaved, machine, median_interval, write
from suite.networks.graph import QUANTIZED, is_called
from suite.recipe import FLOAT_BITS, Stage
from suite.recipe.planning import float_stage_of
from suite.recipe.words import counted
from suite.record.files import Folders
from suite.run.float_stage import load_float

FOLDER = "layer-times"
"""Of the runs folder, where the records are."""

Attributes = tuple[tuple[str, int | tuple[int, ...]], ...]


@dataclass(frozen=True)
class Shape:
    """What the time of a layer depends on: the shapes of its input, the batch first, and of its weight, and the
    attributes of ONNX's Conv; none of a linear layer."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    attributes: Attributes = ()


def measure_layers(
    stage: Stage, folders: Folders, batch: int, threads: int, seconds: float, doing: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """Measure the layers of the float network that a recipe starts from, or that a float stage is; the file of the
    record, in the runs folder, and the record, which LayerTimes.read takes. seconds: of each kernel, about.

    Raises SuiteError where ONNX Runtime is not installed, and for a stage that is not done.
    """
    check_installed()
    start = float_stage_of(stage)
    data = start.dataset
    x = torch.zeros(batch, data.channels, data.size, data.size)
    found = shapes(load_float(start, folders).eval(), x)
    kinds = list(dict.fromkeys(found.values()))
    places = [(shape, bits) for shape in kinds for bits in (8, FLOAT_BITS)]
    runs = [kernel(shape, bits == 8, threads) for shape, bits in places]
    samples = interleaved(runs, seconds, lambda words: doing(f"{counted(len(found), 'layer')}, {words}"))
    rows = {place: _row(*of_one) for place, of_one in zip(places, samples, strict=True)}
    clock = "processor_ms" if disturbed([*rows.values()], threads) else "median_ms"
    listed = [
        {"name": name, "weight_bits": bits, "input_bits": bits, "milliseconds": row[clock], **row}
        for name, shape in found.items()
        for bits in (8, FLOAT_BITS)
        for row in [rows[shape, bits]]
    ]
    about = {"key": start.key, "name": start.name, "runtime": "onnxruntime", "batch": batch, "clock": clock}
    record = {**machine(threads), **about, "layers": listed}
    return write(record, folders.runs / FOLDER), record


def _row(clock: list[float], processor: list[float]) -> dict[str, Any]:
    median, low, high = median_interval(clock)
    return {
        **{"median_ms": median, "low_ms": low, "high_ms": high},
        **{"processor_ms": median_interval(processor)[0], "rounds": len(clock)},
    }


@torch.no_grad()
def shapes(network: nn.Module, x: Tensor) -> dict[str, Shape]:
    """Of each convolution and linear layer that computes when `network` is given `x`, by name; of one that is called
    more than once its first call."""
    found: dict[str, Shape] = {}

    def note(name: str, layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        given, weight = args[0], tuple(layer.weight.shape)
        if isinstance(layer, nn.Linear):
            shape = Shape((given.numel() // given.shape[-1], given.shape[-1]), weight)
        else:
            shape = Shape(tuple(given.shape), weight, _attributes(layer))
        found.setdefault(name, shape)

    layers = [(name, one) for name, one in network.named_modules() if is_called(one, QUANTIZED)]
    hooks = [layer.register_forward_hook(partial(note, name)) for name, layer in layers]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _attributes(layer: Any) -> Attributes:
    kernel, dilation = layer.kernel_size, layer.dilation
    if layer.padding == "same":
        whole = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        pads = tuple([n // 2 for n in whole] + [n - n // 2 for n in whole])
    else:
        pads = (0,) * (2 * len(kernel)) if layer.padding == "valid" else tuple(layer.padding) * 2
    return (
        *(("kernel_shape", tuple(kernel)), ("strides", tuple(layer.stride)), ("dilations", tuple(dilation))),
        *(("pads", pads), ("group", layer.groups)),
    )


def kernel(shape: Shape, integers: bool, threads: int) -> Callable[[], Any]:
    """The operator of one layer on uint8 inputs and outputs and 8-bit weights, or on float32, ready to be run. Weights
    are unsigned where this processor would clip sums otherwise, as `export` stores them."""
    random = np.random.default_rng(0)
    outputs = shape.weight[0]
    if integers:
        given = _integers(shape, random, outputs)
        op, domain = ("QLinearConv", "") if shape.attributes else ("QGemm", "com.microsoft")
    else:
        given = {
            "x": random.normal(size=shape.input).astype(np.float32),
            "w": random.normal(size=shape.weight).astype(np.float32),
            "b": np.zeros(outputs, np.float32),
        }
        op, domain = ("Conv" if shape.attributes else "Gemm"), ""
    session = agreement.session(_operator(op, domain, given, dict(shape.attributes)), True, threads=threads)
    x = given["x"]
    return lambda: session.run(None, {"x": x})


def _integers(shape: Shape, random: np.random.Generator, outputs: int) -> dict[str, Any]:
    """The inputs of QLinearConv or, of a linear layer, of QGemm, in their order."""
    low = -127 if agreement.has_vnni() else 0
    kind = np.int8 if agreement.has_vnni() else np.uint8
    scales = {"xs": np.float32(0.02), "ws": np.full(outputs, 0.01, np.float32), "ys": np.float32(0.05)}
    zero = np.full(outputs, 0 if agreement.has_vnni() else 128, kind)
    first = {
        **{"x": random.integers(0, 256, shape.input).astype(np.uint8), "xs": scales["xs"], "xz": np.uint8(0)},
        **{"w": random.integers(low, low + 255, shape.weight).astype(kind), "ws": scales["ws"], "wz": zero},
    }
    bias, last = {"b": np.zeros(outputs, np.int32)}, {"ys": scales["ys"], "yz": np.uint8(128)}
    return first | last | bias if shape.attributes else first | bias | last


def _operator(op: str, domain: str, given: dict[str, Any], attributes: dict[str, Any]) -> Any:
    """An ONNX model of one operator, whose input is "x" and whose other inputs are stored."""
    from onnx import TensorProto, helper, numpy_helper

    x = given["x"]
    kind = TensorProto.UINT8 if x.dtype == np.uint8 else TensorProto.FLOAT
    stored = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in given.items() if name != "x"
    ]
    if not attributes:
        attributes = {"transB": 1}
    node = helper.make_node(op, list(given), ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        stored,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
