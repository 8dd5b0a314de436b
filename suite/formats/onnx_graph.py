"""A quantized network as ONNX: stored integers, QuantizeLinear and DequantizeLinear, opset 21.

torch's exporter cannot take torch's own fake quantization (2.13), so each quantizer becomes a module that names the
two operators, and each weight a stored integer behind DequantizeLinear. An input stands on unsigned integers: a
signed grid is moved up by half, which changes no level. Where a grid does not fill its integers, as at 4 bits or on
the narrow grid, a Clip at its ends comes first.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import by_channel
from suite.formats.exporter_errors import fixed_batch, quiet, why_not_exported
from suite.formats.operators import StoredWeight, with_operators
from suite.integers.levels import Integers, Levels, NoIntegersError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OPSET = 21


class QuantizeInput(nn.Module):
    """Clip, QuantizeLinear, DequantizeLinear of a whole tensor. It computes nothing in torch."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        wide = levels.quant_max - levels.quant_min > 255
        self.dtype, bits = (torch.uint16, 16) if wide else (torch.uint8, 8)
        half, top = 1 << (bits - 1), (1 << bits) - 1
        moved = half if levels.quant_min < 0 else 0
        if moved and (levels.quant_min < -half or levels.quant_max >= half):
            moved = -levels.quant_min
        first, last = levels.quant_min + moved, levels.quant_max + moved
        low, high = levels.limits
        self.low, self.high = (low if first > 0 else None), (high if last < top else None)
        self.register_buffer("scale", levels.scale.clone())
        self.register_buffer("zero_point", torch.tensor(levels.zero_point + moved).to(self.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """`x` with the two operators behind it."""
        if self.low is not None or self.high is not None:
            x = torch.clamp(x, min=self.low, max=self.high)
        given = self.scale, self.zero_point
        how: dict[str, Any] = {"shape": x.shape, "version": OPSET}
        q = torch.onnx.ops.symbolic("QuantizeLinear", (x, *given), dtype=self.dtype, **how)
        result: Tensor = torch.onnx.ops.symbolic("DequantizeLinear", (q, *given), dtype=torch.float32, **how)
        return result


class GlobalAveragePool(nn.Module):
    """The mean of each channel. torch's exporter writes ReduceMean, for which runtimes have no integer kernel."""

    def forward(self, x: Tensor) -> Tensor:
        """float32 [n, channels, 1, 1]."""
        shape = (*x.shape[:2], *[1] * (x.dim() - 2))
        result: Tensor = torch.onnx.ops.symbolic(
            "GlobalAveragePool", (x,), dtype=torch.float32, shape=shape, version=OPSET
        )
        return result


class Dequantized(StoredWeight):
    """Stored integers behind DequantizeLinear, of one scale or one a channel."""

    def weight(self) -> Tensor:
        """float32, of the layer's shape."""
        given = self.q, self.scale, self.zero_point
        axis: dict[str, Any] = {"axis": 0} if self.scale.dim() else {}
        result: Tensor = torch.onnx.ops.symbolic(
            "DequantizeLinear", given, axis, dtype=torch.float32, shape=self.q.shape, version=OPSET
        )
        return result


def stored(weight: Integers, unsigned: bool = False) -> tuple[Tensor, Tensor]:
    """(integers, zero points) as they are stored, int8, or uint8 where `unsigned`, or int16 where they need that.

    The zero point of a channel is 0 (128 where unsigned) unless its integers leave int8 otherwise. Raises
    NoIntegersError where a channel spans more than 16 bits.
    """
    for bits in (8, 16):
        if (found := _moved(weight.q, bool(weight.scale.dim()), bits)) is not None:
            break
    else:
        ends = int(weight.q.min()), int(weight.q.max())
        raise NoIntegersError(f"the integers of a weight go from {ends[0]} to {ends[1]}, beyond 16 bits")
    moved, zero = found
    if unsigned and bits == 8:
        return (moved + 128).to(torch.uint8), (zero + 128).to(torch.uint8)
    dtype = torch.int8 if bits == 8 else torch.int16
    return moved.to(dtype), zero.to(dtype)


def _moved(q: Tensor, per_channel: bool, bits: int) -> tuple[Tensor, Tensor] | None:
    """(integers, zero points, one or one a channel), signed ones of so many bits whose differences are `q`; None where
    a channel spans more. A zero point is as near to 0 as it can be."""
    half = 1 << (bits - 1)
    rows = q.reshape(len(q), -1) if per_channel else q.reshape(1, -1)
    low, high = rows.amin(1), rows.amax(1)
    zero = (-half - low).clamp_min(0) + (half - 1 - high).clamp_max(0)
    if not bool(((low + zero >= -half) & (high + zero < half) & (zero >= -half) & (zero < half)).all()):
        return None
    if not per_channel:
        return q + zero[0], zero[0]
    return q + by_channel(zero, q, 0), zero


def prepared(model: nn.Module, unsigned: Collection[str]) -> nn.Module:
    """A copy of `model` for the exporter: every quantizer and rounded weight as its ONNX operators. unsigned: the
    layers whose integers are stored so."""

    def dequantized(name: str, layer: nn.Module, input: nn.Module | None, weight: Integers) -> Dequantized:
        q, zero_point = stored(weight, name.removesuffix(".layer") in unsigned)
        return Dequantized(layer, input, q, weight.scale.clone(), zero_point)

    model = with_operators(model, QuantizeInput, dequantized)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            model.set_submodule(name, GlobalAveragePool())
    return model


def onnx_model(model: nn.Module, example: Tensor, unsigned: Collection[str] = ()) -> ModelProto:
    """`model`, a quantized network of which all is on grids, as ONNX of a dynamic batch: "images" to "logits".

    example: float32 [2 or more, channels, height, width]. unsigned: the layers whose weights are uint8. Of the others
    those whose channels span at most 16 integers are int4. Raises NoIntegersError where torch's exporter
    fails, with the layer and the reason.
    """
    import onnx

    ready = prepared(model, unsigned)
    try:
        with quiet():
            program = torch.onnx.export(
                ready,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["images"],
                output_names=["logits"],
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise NoIntegersError(why_not_exported(error, ready, model, example)) from error
    assert program is not None
    made = program.model_proto
    if not made.graph.output[0].type.tensor_type.shape.dim[0].dim_param:
        raise NoIntegersError(fixed_batch(model, example))
    _store_int4(made)
    _strip(made)
    onnx.checker.check_model(made)
    return made


SCOPES = "pkg.torch.onnx.name_scopes"


def _strip(made: ModelProto) -> None:
    """Leave out where in whose code each operator comes from, most of a small file; the names of modules stay."""
    del made.graph.metadata_props[:]
    for node in made.graph.node:
        node.doc_string = ""
        scopes = [(one.key, one.value) for one in node.metadata_props if one.key == SCOPES]
        del node.metadata_props[:]
        for key, value in scopes:
            node.metadata_props.add(key=key, value=value)


def _store_int4(made: ModelProto) -> None:
    """Weights, but unsigned ones, whose channels span at most 16 integers take half a byte each; their zero
    points are of their own then, since the exporter shares equal ones, and lie in -8..7 as well."""
    from onnx import TensorProto, helper, numpy_helper

    graph = made.graph
    by_name = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in by_name:
            continue
        q, zero = (by_name[name] for name in (node.input[0], node.input[2]))
        if q.data_type != TensorProto.INT8:
            continue
        values, zeros = (torch.from_numpy(numpy_helper.to_array(one).astype(int)) for one in (q, zero))
        apart = values - by_channel(zeros, values, 0)
        if (narrow := _moved(apart, bool(zeros.dim()), 4)) is None:
            continue
        names = q.name, f"{q.name}_zero_point"
        stored4 = [
            helper.make_tensor(name, TensorProto.INT4, [*one.shape], one.flatten().tolist())
            for name, one in zip(names, narrow, strict=True)
        ]
        q.CopyFrom(stored4[0])
        graph.initializer.append(stored4[1])
        node.input[2] = names[1]
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    # The exporter lists initializers among the typed values; a type that changed would contradict.
    named = [info for info in graph.value_info if info.name not in by_name]
    del graph.value_info[:]
    graph.value_info.extend(named)


def stored_weights(content: bytes) -> dict[str, dict[str, Any]]:
    """By the layers of an ONNX file, the type of a weight's integers and their zero points, as the file has them."""
    import onnx

    graph = onnx.load_from_string(content).graph
    stored = {one.name: one for one in graph.initializer}
    found: dict[str, dict[str, Any]] = {}
    for node in graph.node:
        names = scopes_of(node) if node.op_type == "DequantizeLinear" else []
        if len(names) > 1 and node.input[0] in stored:
            zero = onnx.numpy_helper.to_array(stored[node.input[2]]).astype(int).tolist()
            kind = onnx.TensorProto.DataType.Name(stored[node.input[0]].data_type).lower()
            found[names[-2]] = {"type": kind, "zero_point": zero}
    return found


def rounded_tensors(made: ModelProto) -> dict[str, str]:
    """Of every quantizer, by the name of its module, the tensor of integers that it gives, in the graph's order."""
    found: dict[str, str] = {}
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear" and len(names := scopes_of(node)) > 1:
            found[names[-2]] = node.output[0]
    return found


def scopes_of(node: NodeProto) -> list[str]:
    """The modules that an operator comes from, the outermost first, and its own name last."""
    scopes = next((one.value for one in node.metadata_props if one.key == SCOPES), "[]")
    return [str(one) for one in ast.literal_eval(scopes)]
