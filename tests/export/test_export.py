"""A finished recipe leaves the suite as a file that computes what its simulation computes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.exported import SGD, Finished
from fakes.missing import missing

from suite.arithmetic.integer import Accumulators
from suite.cli.main import main
from suite.export import agreement
from suite.export.agreement import Simulation
from suite.export.exporting import export
from suite.export.onnx_file import onnx_file
from suite.export.request import Request
from suite.formats import onnx_graph
from suite.formats.rebuild import Rebuilt, rebuilt
from suite.formats.tensors import tensors_of
from suite.integers.everywhere import fold_batch_norm, integer_everywhere, traced
from suite.integers.integer_network import IntegerNetwork
from suite.methods.amax import Amax
from suite.methods.apot import Apot
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.lsq import Lsq
from suite.methods.lsq_plus import LsqPlus
from suite.methods.mse import Mse
from suite.quantizers.layers import LAYERS
from suite.recipe import Calibration, Recipe
from suite.recipe.errors import SuiteError
from suite.recipe.method import Method

try:
    import onnx
    from onnx import TensorProto, numpy_helper
except ImportError:
    onnx = None

CALIBRATION = Calibration(images=128, batch=64)


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Path]:
    """A trained recipe, its ONNX file and its record; signed weights, which not every machine has by default."""
    if onnx is None:
        missing("onnx is not installed; pip install '.[export]'")
    recipe = finished.recipe(Lsq(4, 4, feed=SGD, calibration=CALIBRATION))
    request = Request(out=tmp_path_factory.mktemp("out") / "small.onnx", unsigned_weights=False)
    file, beside, _ = export(recipe, finished.folders, request)
    return recipe, file, beside


def everywhere(finished: Finished, method: Method) -> tuple[Rebuilt, torch.fx.GraphModule]:
    source = rebuilt(finished.recipe(method), finished.folders)
    return source, integer_everywhere(source.model, source.calibration())[0]


def test_an_exported_file_computes_what_the_simulation_computes(exported: tuple[Recipe, Path, Path]) -> None:
    """Small integers, a trained network, a dynamic batch; the record beside it says what is in the file."""
    recipe, file, beside = exported
    record = json.loads(beside.read_text())
    assert record["agreement"]["rebuilt"] == {"images": 599, "other_answers": 0}
    # Without VNNI, integer kernels clip sums of signed weights.
    for name in ("same_arithmetic", *["integer_kernels"] * agreement.has_vnni()):
        assert record["agreement"][name]["flips"] <= 1
        assert record["agreement"][name]["mean_difference"] <= 0.02
    assert record["key"] == recipe.key and record["top1"] == pytest.approx(record["simulated_top1"])
    assert record["opset"] == 21 and record["bytes"] == file.stat().st_size
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["convention"].startswith("the recipe's own") and "cpu_flags" in record
    layers = {layer["name"]: layer for layer in record["layers"]}
    assert list(layers) == ["stem", "conv1", "conv2", "short", "linear"]
    assert [layers[name]["weight"]["bits"] for name in layers] == [8, 4, 4, 4, 8]

    made = onnx.load(str(file))
    graph, about = made.graph, {one.key: one.value for one in made.metadata_props}
    assert about == {"key": recipe.key, "name": recipe.name, "convention": record["convention"]}
    kinds = [tensor.data_type for tensor in graph.initializer if tensor.name.endswith(".q")]
    assert sorted(kinds) == sorted([TensorProto.INT8] * 2 + [TensorProto.INT4] * 3)
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(activations) == 5
    session = agreement.session(file.read_bytes(), False)
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    whole = session.run(None, {"images": x})[0]
    parts = [session.run(None, {"images": x[at : at + 1]})[0] for at in range(3)]
    assert whole.shape == (3, 10) and np.allclose(whole, np.concatenate(parts), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    "method",
    [Mse(8, 8, feed=CALIBRATION), Amax(8, 8, feed=CALIBRATION), Mse(12, 3, feed=CALIBRATION)],
    ids=str,
)
@pytest.mark.parametrize(("integers", "unsigned"), [(False, False), (True, False), (True, True)])
def test_every_convention_and_width_agrees(
    finished: Finished, tmp_path: Path, needs_onnx: None, method: Method, integers: bool, unsigned: bool
) -> None:
    request = Request(out=tmp_path / "a.onnx", integer_everywhere=integers, unsigned_weights=unsigned)
    file, _, record = export(finished.recipe(method), finished.folders, request)
    found = record["agreement"]
    assert agreement.within_bounds(found["same_arithmetic"])
    if agreement.has_vnni() or unsigned:
        assert agreement.within_bounds(found["integer_kernels"])
    weights = [one for one in onnx.load(str(file)).graph.initializer if one.name.endswith(".q")]
    kind = (
        TensorProto.INT16 if method.weight_bits > 8 else TensorProto.UINT8 if unsigned else TensorProto.INT8
    )
    assert {one.data_type for one in weights} == {kind}
    if integers and method == Mse(8, 8, feed=CALIBRATION):
        kernels = found["integer_kernels"]["kernels"]
        expected = {"QLinearConv": 4, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1}
        assert kernels | expected == kernels
    clips = [line for line in record["warnings"] if "more than 7 bits" in line]
    assert bool(clips) == (method.weight_bits == 8 and method.act_bits == 8 and not unsigned)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Apot(4, 4, feed=SGD), r"levels of 3 of its layers.*conv1: .*conv2: no step was found.*short"),
        (LsqPlus(4, 4, feed=SGD, calibration=CALIBRATION), "no whole number"),
        (Amax(8, 8), r"stem: its range follows each batch.*feed=Calibration"),
        (BuiltinInt8(feed=CALIBRATION), "torch.ao's packed integer modules"),
    ],
    ids=lambda value: getattr(value, "name", "reason"),
)
def test_a_recipe_without_a_grid_is_refused_by_its_layers_and_leaves_nothing(
    finished: Finished, tmp_path: Path, method: Method, reason: str
) -> None:
    with pytest.raises(SuiteError, match=reason):
        export(finished.recipe(method), finished.folders, Request("safetensors", tmp_path / "a.safetensors"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["safetensors", "state_dict"])
def test_tensors_by_name_give_the_weights_of_the_simulation_bit_by_bit(
    finished: Finished, tmp_path: Path, to: Any
) -> None:
    recipe = finished.recipe(Mse(4, 8, feed=CALIBRATION))
    file, _, record = export(recipe, finished.folders, Request(to, tmp_path / "a.bin", images=64))
    assert record["agreement"]["same_arithmetic"]["largest_difference"] == 0
    assert record["agreement"]["first_difference"] is None
    about: Any
    if to == "safetensors":
        from safetensors import safe_open
        from safetensors.torch import load

        tensors = load(file.read_bytes())
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
    else:
        tensors = torch.load(file, weights_only=True)
        about = tensors._metadata[""]
    assert about == {name: record[name] for name in ("key", "name", "convention")}
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    model = rebuilt(recipe, finished.folders).model
    found = 0
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            name = name.removesuffix(".layer")
            q, scale = tensors[f"{name}.weight"], tensors[f"{name}.weight_scale"]
            assert q.dtype == torch.int8 and int(q.abs().max()) <= 8
            shaped = scale.reshape([-1, *[1] * (q.dim() - 1)])
            assert torch.equal(
                (q.int() - tensors[f"{name}.weight_zero_point"].int().reshape(shaped.shape)) * shaped,
                module.weight,
            )
            found += 1
    assert found == 5 and not [name for name in tensors if ".layer." in name]
    assert tensors.keys() == tensors_of(model).keys()


def test_the_network_in_integers_answers_as_its_simulation(finished: Finished) -> None:
    """Its sums are exact, so only fixed-point factors and biases differ: a level here and there."""
    source, network = everywhere(finished, Mse(8, 8, feed=CALIBRATION))
    test = source.images("test")
    integers = IntegerNetwork(network)
    reference = agreement.simulated(network, test, 200)
    found = agreement.difference(reference, agreement.simulated(integers, test, 200))
    assert found["flips"] <= 1 and found["mean_difference"] < 0.02
    assert not integers.sums.overflows and integers.sums.values["conv1"] == 200 * 8 * 4 * 4


def test_16_bit_accumulators_overflow_and_the_answers_show_it(finished: Finished) -> None:
    source, network = everywhere(finished, Mse(8, 8, feed=CALIBRATION))
    test = source.images("test")
    narrow, wide = IntegerNetwork(network, Accumulators(16)), IntegerNetwork(network)
    logits = [agreement.simulated(model, test, 100) for model in (narrow, wide)]
    assert max(wide.sums.largest.values()) >= 2**15
    assert narrow.sums.overflows and not wide.sums.overflows
    assert not torch.equal(*logits)


def test_batch_norm_in_the_scales_changes_no_integer_and_no_answer(finished: Finished) -> None:
    source = rebuilt(finished.recipe(Mse(8, 8, feed=CALIBRATION)), finished.folders)
    before = agreement.simulated(source.model, source.images("test"), 100)
    folded = fold_batch_norm(traced(source.model))
    after = agreement.difference(before, agreement.simulated(folded, source.images("test"), 100))
    assert after["flips"] <= 1 and after["mean_difference"] < 0.02
    assert not [one for one in folded.graph.nodes if "bn" in str(one.target)]


def test_rounding_additions_too_is_another_network_and_a_near_one(finished: Finished) -> None:
    source = rebuilt(finished.recipe(Mse(8, 8, feed=CALIBRATION)), finished.folders)
    network, joints = integer_everywhere(source.model, source.calibration())
    assert len(joints) == 3  # both operands of the addition, and its sum, which is pooled
    logits = [agreement.simulated(model, source.images("test"), 200) for model in (source.model, network)]
    found = agreement.difference(*logits)
    assert 0 < found["mean_difference"] < 0.1


def test_bad_wishes_say_what_to_do_and_write_nothing(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = finished.recipe(Mse(8, 8, feed=CALIBRATION))
    runs = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data)]
    for words, said in (
        (
            [recipe.key, "--to", "tflite"],
            "--to 'tflite' is unknown; use one of onnx, pt2e, openvino, state_dict, safetensors",
        ),
        (
            [recipe.key, "--to", "onnx", "--out", str(tmp_path / "no" / "a.onnx")],
            "is no folder that can be written",
        ),
        ([recipe.key, "--to", "onnx", "--out", str(tmp_path)], "is there, and is no regular file"),
        ([recipe.key, "--to", "onnx", "--out", str(tmp_path / "a.json")], "the name of the record"),
        (
            [finished.start.key, "--to", "safetensors", "--out", str(tmp_path / "a.md")],
            "the name of the model card",
        ),
        ([recipe.key, "--to", "onnx", "--images", "0"], "--images must be 1 or more"),
        ([recipe.key, "--to", "safetensors", "--unsigned-weights"], "for --to onnx alone"),
        (["0000", "--to", "onnx"], "no stage has key '0000'"),
        ([finished.start.key, "--to", "onnx"], "is a float network, nothing is quantized in it"),
        (["small"], "or --parquet FILE or --csv FILE with the name of a sweep"),
    ):
        assert main(["export", *words, *runs]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_recipe_that_is_not_done_and_one_whose_run_answered_otherwise_are_refused(
    finished: Finished, tmp_path: Path
) -> None:
    recipe = finished.recipe(Mse(6, 6, feed=CALIBRATION))
    outcome = finished.folders.runs / recipe.key / "outcome.json"
    text = outcome.read_text()
    try:
        content = json.loads(text)
        outcome.write_text(json.dumps(content | {"correct": "AAAA" * 25}))
        with pytest.raises(SuiteError, match="test images right or wrong otherwise than its run"):
            export(recipe, finished.folders, Request("state_dict", tmp_path / "a.pt"))
        outcome.unlink()
        with pytest.raises(SuiteError, match="is not done yet; run it first"):
            export(recipe, finished.folders, Request("state_dict", tmp_path / "a.pt"))
    finally:
        outcome.write_text(text)
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused_with_its_first_layer(
    finished: Finished, exported: tuple[Recipe, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wrong kernels would: one scale of the file is changed behind the exporter."""
    source = rebuilt(exported[0], finished.folders)
    made = onnx.load(str(exported[1]))
    for tensor in made.graph.initializer:
        if tensor.name == "conv1.scale":
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name)
            )
    monkeypatch.setattr(onnx_graph, "onnx_model", lambda *_: made)
    simulation = Simulation.of(source.model, source.images("test"), None)
    with pytest.raises(
        SuiteError, match=r"where 1 in 2000 and 0\.02 may; the first layer that differs is conv2"
    ):
        onnx_file(simulation, Request(), {}, [])
    x = next(simulation.batches())
    assert (agreement.first_clipped(made, source.model, x) or {})["layer"] == "conv2", (
        "with integer kernels as well"
    )
