"""Files for PyTorch's PT2E and for OpenVINO, what older processors need, and what they are compared by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.exported import Finished

from suite.export import agreement, onnx_file, runtime_files, runtimes
from suite.export.agreement import Simulation
from suite.export.exporting import export
from suite.export.request import Request
from suite.formats import pt2e, torch_ao
from suite.formats.rebuild import rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.methods.mse import Mse
from suite.recipe import Calibration
from suite.recipe.errors import SuiteError

ROOT = Path(__file__).parent.parent.parent
CALIBRATION = Calibration(images=128, batch=64)
EIGHT = Mse(8, 8, feed=CALIBRATION)


def needs(runtime: str) -> None:
    """Skip without an extra that is not part of the tests' requirements."""
    if reason := runtimes.why_not(runtime):
        pytest.skip(reason)


def test_an_exported_program_computes_what_the_simulation_computes(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not compiled here: that takes half a minute."""
    needs("inductor")
    monkeypatch.setattr(runtime_files, "why_not", lambda runtime: "no compiler")
    recipe = finished.recipe(EIGHT)
    file, _, record = export(recipe, finished.folders, Request("pt2e", tmp_path / "a.pt2", images=200))
    found = record["agreement"]
    assert found["same_arithmetic"]["flips"] == 0 and found["same_arithmetic"]["mean_difference"] < 1e-6
    assert found["integer_kernels"] == {"skipped": "no compiler"}
    assert any("not tried: no compiler" in line for line in record["warnings"])
    about = {"about.json": ""}
    read = torch.export.load(file, extra_files=about)
    assert json.loads(about["about.json"]) == {name: record[name] for name in ("key", "name", "convention")}
    x = next(agreement.batches(rebuilt(recipe, finished.folders).images("test"), 3))
    assert read.module()(x).shape == (3, 10)
    kinds = {name: tensor.dtype for name, tensor in read.state_dict.items() if name.endswith(".q")}
    assert len(kinds) == 5 and set(kinds.values()) == {torch.int8}


def test_what_is_compared_is_the_file_itself(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that put another network into the file is found out."""
    needs("inductor")
    other = rebuilt(finished.recipe(Mse(3, 3, feed=CALIBRATION)), finished.folders)
    written = pt2e.pt2e_file

    def wrong(_: Any, about: dict[str, str]) -> bytes:
        return written(pt2e.program(other.model, next(agreement.batches(other.images("test"), 2))), about)

    monkeypatch.setattr(pt2e, "pt2e_file", wrong)
    with pytest.raises(SuiteError, match="the PT2E file does not compute what the simulation computes"):
        export(finished.recipe(EIGHT), finished.folders, Request("pt2e", tmp_path / "a.pt2", images=200))
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_compiled_with_freezing_it_sums_integers_and_agrees(finished: Finished, tmp_path: Path) -> None:
    needs("inductor")
    request = Request("pt2e", tmp_path / "a.pt2", integer_everywhere=True, images=200)
    record = export(finished.recipe(EIGHT), finished.folders, request)[2]
    found = record["agreement"]["integer_kernels"]
    assert found["kernels"] == {"convolutions": 4, "linear layers": 1}
    assert agreement.within_bounds(found) or not agreement.has_vnni()


@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.long)])
def test_openvino_computes_what_the_simulation_computes(
    finished: Finished, tmp_path: Path, everywhere: bool
) -> None:
    needs("openvino")
    request = Request("openvino", tmp_path / "a.xml", everywhere, images=200)
    file, _, record = export(finished.recipe(EIGHT), finished.folders, request)
    assert file.is_file() and (tmp_path / "a.bin").is_file() and record["bytes"] == file.stat().st_size
    assert f'<convention value="{record["convention"]}"' in file.read_text()
    found = record["agreement"]["openvino"]
    assert agreement.within_bounds(found) or not agreement.has_vnni()
    assert any("u8" in name or "i8" in name for name in found["kernels"])


@pytest.mark.parametrize("bits", [8, 4])
def test_torch_aos_operators_compute_what_the_simulation_computes(finished: Finished, bits: int) -> None:
    """Of 7-bit weights, which every processor sums right; narrow grids are clamped."""
    needs("torch_ao")
    source = rebuilt(finished.recipe(Mse(min(bits, 7), bits, feed=CALIBRATION)), finished.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    simulation = Simulation.of(network, source.images("test"), 300)
    made = torch_ao.QuantizedOperators(network)
    found = simulation.beside(made)
    assert found["flips"] <= 1 and found["mean_difference"] <= 0.02
    assert made.kernels == {"quantized Conv2d": 4, "quantized Linear": 1, "quantized add": 1}
    exported = runtimes.Exported("key", "name", network, simulation.example, int8=True)
    engine, plain = (
        runtimes.engine(one, "torch_ao", precision, 2, 1)
        for one, precision in (
            (exported, "int8"),
            (runtimes.Exported("key", "name", source.model, simulation.example, int8=False), "float32"),
        )
    )
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(engine.run(simulation.example.numpy())), made(simulation.example))
    assert engine.kernels == made.kernels and plain.run(simulation.example.numpy()).shape == (2, 10)


def test_torch_ao_refuses_what_it_does_not_compute(finished: Finished) -> None:
    needs("torch_ao")
    source = rebuilt(finished.recipe(Mse(12, 3, feed=CALIBRATION)), finished.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    with pytest.raises(SuiteError, match="layer stem is none; use another runtime"):
        torch_ao.QuantizedOperators(network)


def test_a_format_whose_packages_are_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for to in ("pt2e", "openvino"):
        with pytest.raises(SuiteError, match=rf"not installed; .* -m pip install --editable '\.\[{to}\]'"):
            runtime_files.check(to)
    runtime_files.check("onnx")


def test_openvino_finds_its_weights_by_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"must end in \.xml"):
        Request("openvino", tmp_path / "a.onnx").file("key")


@pytest.mark.parametrize(
    ("flags", "isa", "asked", "unsigned"),
    [
        (("avx2",), "", None, True),
        (("avx2",), "", False, False),
        (("avx2", "avx512_vnni"), "", None, False),
        (("avx2", "avx512_vnni"), "AVX2", None, True),
        (("avx2", "avx512_vnni"), "", True, True),
    ],
)
def test_weights_are_unsigned_where_the_machine_would_clip_sums(
    monkeypatch: pytest.MonkeyPatch, flags: Any, isa: str, asked: bool | None, unsigned: bool
) -> None:
    monkeypatch.setattr(agreement, "cpu_flags", lambda: flags)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    warnings: list[str] = []
    assert onnx_file._unsigned(Request(unsigned_weights=asked), ("conv1",), warnings) == unsigned
    assert not onnx_file._unsigned(Request(unsigned_weights=False), (), warnings)
    chosen = asked is None and unsigned
    assert [line for line in warnings if "stored unsigned: this processor has no VNNI" in line] == (
        warnings if chosen else []
    )


def test_a_processor_that_clips_is_warned_of_and_one_that_should_not_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far = {"images": 2000, "flips": 70, "flips_beyond_noise": 70, "mean_difference": 0.9}
    warnings: list[str] = []
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(agreement, "cpu_flags", lambda: ("avx2",))
    runtime_files._judge("OpenVINO's", far, ("conv1",), warnings)
    assert "70 of 2000 answers" in warnings[0] and "no VNNI" in warnings[0]
    for flags, clips in ((("avx2",), ()), (("avx2", "avx_vnni"), ("conv1",))):
        monkeypatch.setattr(agreement, "cpu_flags", lambda flags=flags: flags)
        with pytest.raises(SuiteError, match="nothing was written"):
            runtime_files._judge("OpenVINO's", far, clips, warnings)


CLIPPED = """
import torch
from torch import nn
from suite.export import agreement
from suite.formats import pt2e
from suite.integers.levels import Integers, Levels

class Net(nn.Module):
    def __init__(self, q):
        super().__init__()
        layer = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        weight = Integers(torch.full((64, 64, 3, 3), q, dtype=torch.int32), torch.full((64,), 1e-3), 8)
        input = pt2e.QuantizeInput(Levels(torch.tensor(1 / 255), 0, 0, 255, 8))
        self.conv = pt2e.dequantized(layer, input, weight)
        self.out = pt2e.QuantizeInput(Levels(torch.tensor(0.5), 0, 0, 255, 8))

    def forward(self, x):
        return self.out(self.conv(x))

pt2e.operators()
x = torch.ones(8, 64, 16, 16)
for q in (127, 63):
    made = torch.export.export(Net(q).eval().requires_grad_(False), (x,)).module()
    run, kernels = pt2e.compiled(made, x)
    print(agreement.has_vnni(), kernels["convolutions"], torch.equal(run(x), made(x)))
"""


@pytest.mark.long
@pytest.mark.parametrize(("isa", "right"), [("AVX2", ["False 1 False", "False 1 True"]), ("", None)])
def test_onednn_without_vnni_clips_sums_of_8_bit_weights_and_none_of_7_bits(
    isa: str, right: list[str] | None
) -> None:
    """By oneDNN's own switch, which a process takes before it computes for the first time."""
    needs("inductor")
    if right is None:
        has = agreement.has_vnni()
        right = [f"{has} 1 {has}", f"{has} 1 True"]
    done = subprocess.run(
        [sys.executable, "-c", CLIPPED],
        cwd=ROOT,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == right, done.stderr


def test_integers_of_pt2e_stand_on_uint8_and_wider_ones_on_int32() -> None:
    from suite.integers.levels import Levels

    for levels, dtype, ends in (
        (Levels(torch.tensor(0.1), 0, -127, 127, 8), torch.uint8, (128, 1, 255)),
        (Levels(torch.tensor(0.1), 3, 0, 255, 8), torch.uint8, (3, 0, 255)),
        (Levels(torch.tensor(0.1), 0, -2048, 2047, 12), torch.int32, (0, -2048, 2047)),
    ):
        made = pt2e.QuantizeInput(levels)
        assert made.how == (pytest.approx(0.1), *ends, dtype)
