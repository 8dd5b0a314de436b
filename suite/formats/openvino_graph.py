"""The ONNX graph of a quantized network as OpenVINO takes it, so that OpenVINO rounds what the graph rounds.

OpenVINO (2026.4) merges a convolution, the quantizer behind it, a residual addition and the quantizer of the sum into
one kernel, and leaves out the rounding of the first quantizer: "drop rounding one special residual pattern" in
`DnnlPostOpsComposer::compose` of its plugin for CPUs. It does so only where that quantizer comes first behind the
convolution. An operator Round before it keeps the rounding, within the same kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

MERGED = ("Relu", "Clip")
"""Operators that may stand between a convolution and its quantizer; OpenVINO merges them into the quantizer."""


def for_openvino(content: bytes) -> bytes:
    """An ONNX file that computes the same as the file `content`: the value that a quantizer between a convolution and
    an addition takes is first rounded to a multiple of the scale."""
    import onnx

    made = onnx.load_from_string(content)
    graph = made.graph
    chosen = _before_additions(graph)
    nodes = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.output[0] in chosen:
            value, scale = node.input[:2]
            of = node.output[0]
            levels, whole, rounded = (f"{of}_{one}" for one in ("levels", "whole", "rounded"))
            nodes += [
                onnx.helper.make_node("Div", [value, scale], [levels], name=levels),
                onnx.helper.make_node("Round", [levels], [whole], name=whole),
                onnx.helper.make_node("Mul", [whole, scale], [rounded], name=rounded),
            ]
            node.input[0] = rounded
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(made.SerializeToString())


def _before_additions(graph: GraphProto) -> set[str]:
    """The integers, by the names of their tensors, that come from a convolution and go to an addition."""
    by_output = {node.output[0]: node for node in graph.node}
    found = set()
    for node in graph.node:
        for name in node.input if node.op_type == "Add" else ():
            dequantize = by_output.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            quantize = by_output.get(dequantize.input[0])
            if quantize is not None and _from_convolution(quantize, by_output):
                found.add(quantize.output[0])
    return found


def _from_convolution(quantize: NodeProto, by_output: dict[str, NodeProto]) -> bool:
    source = by_output.get(quantize.input[0])
    while source is not None and source.op_type in MERGED:
        source = by_output.get(source.input[0])
    return source is not None and source.op_type == "Conv"
