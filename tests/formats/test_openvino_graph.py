"""OpenVINO rounds the operands of a residual addition, as the graph that it is given says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.exported import Finished

from suite.export import agreement, runtimes
from suite.export.agreement import Simulation
from suite.formats.onnx_graph import onnx_model, rounded_tensors
from suite.formats.openvino_graph import for_openvino
from suite.formats.rebuild import rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.methods.mse import Mse
from suite.recipe import Calibration

SEVEN = Mse(7, 8, feed=Calibration(images=128, batch=64))


@pytest.fixture(scope="module")
def simulation(finished: Finished) -> Simulation:
    """Integers everywhere, 7-bit weights, which every processor sums right."""
    source = rebuilt(finished.recipe(SEVEN), finished.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    return Simulation.of(network, source.images("test"), 300)


def cut_at(content: bytes, tensor: str) -> bytes:
    """The ONNX file up to a tensor of integers, which is its only output."""
    import onnx

    made = onnx.load_from_string(content)
    needed, kept = {tensor}, []
    for node in reversed(made.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.insert(0, node)
    del made.graph.node[:]
    made.graph.node.extend(kept)
    del made.graph.output[:]
    made.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.UINT8, None))
    return bytes(made.SerializeToString())


def test_the_operands_of_an_addition_are_rounded_within_openvinos_kernel(
    simulation: Simulation, needs_onnx: None
) -> None:
    """Without the operator Round a fifth of the sum's integers differed, and logits by more than the bound."""
    if reason := runtimes.why_not("openvino"):
        pytest.skip(reason)
    import onnx

    made = onnx_model(simulation.model, simulation.example)
    x = next(simulation.batches())
    ours = agreement._integers(simulation.model, x, {"joint2"})["joint2"]
    tensor = rounded_tensors(made)["joint2"]
    [zero] = (one.input[2] for one in made.graph.node if tensor in one.output)
    [zero_point] = (onnx.numpy_helper.to_array(one) for one in made.graph.initializer if one.name == zero)
    shares = []
    for content in (made.SerializeToString(), for_openvino(made.SerializeToString())):
        compiled = runtimes.openvino_model(cut_at(content, tensor), "float32", len(x), 1)
        theirs = compiled.create_infer_request().infer({0: x.numpy()})[0].astype(np.int64) - int(zero_point)
        shares.append(float((torch.from_numpy(theirs) != ours).double().mean()))
        convolutions = runtimes.openvino_kernels(compiled)
        assert convolutions == {"Convolution u8": 4}, "the addition is part of a convolution"
    assert shares[1] < 0.001
    assert shares[0] > 0.05, "OpenVINO rounds by itself now: for_openvino can go"


def test_the_graph_for_openvino_computes_the_same(simulation: Simulation, needs_onnx: None) -> None:
    """Both operands of the one addition come from a convolution; nothing else is rounded once more."""
    import onnx

    content = onnx_model(simulation.model, simulation.example).SerializeToString()
    other = for_openvino(content)
    logits = [
        agreement.answered(one, simulation.batches(), integer_kernels=False) for one in (content, other)
    ]
    assert torch.equal(*logits)
    before, after = (onnx.load_from_string(one).graph.node for one in (content, other))
    assert [node.op_type for node in after if node.op_type == "Round"] == ["Round"] * 2
    assert len(after) == len(before) + 6


def test_a_network_without_rounded_additions_is_left_alone(finished: Finished, needs_onnx: None) -> None:
    source = rebuilt(finished.recipe(SEVEN), finished.folders)
    content = onnx_model(source.model, next(agreement.batches(source.images("test"), 2))).SerializeToString()
    assert for_openvino(content) == content
