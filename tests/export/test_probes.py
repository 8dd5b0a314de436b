"""After an export every runtime that is installed is compared, or skipped with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.exported import Finished

from suite.cli.main import main
from suite.export import agreement, probes, runtimes
from suite.export.agreement import Simulation
from suite.formats.rebuild import rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.methods.mse import Mse
from suite.recipe import Calibration

SEVEN = Mse(7, 8, feed=Calibration(images=128, batch=64))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO and TorchInductor are not installed, so that the test takes as long everywhere."""
    known = probes.why_not
    monkeypatch.setattr(
        probes, "why_not", lambda name: "not here" if name in ("openvino", "inductor") else known(name)
    )


@pytest.mark.usefixtures("alone", "needs_onnx")
def test_every_runtime_that_is_here_is_compared_and_others_say_why_not(finished: Finished) -> None:
    source = rebuilt(finished.recipe(SEVEN), finished.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    simulation = Simulation.of(network, source.images("test"), 200)
    found = probes.probed(simulation, "state_dict", {}, compiled=False)
    assert list(found) == list(runtimes.PACKAGES)
    assert found["openvino"] == found["inductor"] == {"skipped": "not here"}
    for runtime in ("onnxruntime", "torch_ao"):
        if not runtimes.why_not(runtime):
            assert found[runtime]["images"] == 200 and found[runtime]["within_bounds"] is True
            assert found[runtime]["kernels"]
    own = Simulation.of(source.model, source.images("test"), 50)
    measured = {"images": 50, "flips": 9, "flips_beyond_noise": 9, "mean_difference": 0.5}
    found = probes.probed(own, "onnx", {"integer_kernels": measured}, compiled=False)
    assert found["onnxruntime"] == measured | {"within_bounds": False}, (
        "what was measured is not measured again"
    )
    assert "integers everywhere alone" in found["torch_ao"]["skipped"]
    assert (
        "9 of 50 answers differ from the simulation, logits by 0.5 in the mean; beyond the bounds"
        in (probes.lines(found)[0])
    )


def test_a_runtime_that_fails_while_it_computes_is_skipped_with_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        def logits(self, images: torch.Tensor) -> Any:
            raise RuntimeError("no kernel")

    monkeypatch.setattr(probes, "engine", lambda *_: Failing())
    x = torch.zeros(4, 3, 8, 8)
    network = runtimes.Exported("", "", torch.nn.Flatten(), x, int8=True)
    assert probes._tried(network, "openvino", x, x) == {"skipped": "RuntimeError: no kernel"}


def test_compiling_is_left_out_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "why_not", lambda name: "")
    simulation: Any = None
    assert "--compiled tries it" in probes._why_not("inductor", simulation, compiled=False)
    assert probes._why_not("inductor", simulation, compiled=True) == ""


@pytest.mark.parametrize(("side", "most"), [(8, 600), (32, 600), (64, 500), (224, 100)])
def test_of_large_images_fewer_are_compared(side: int, most: int) -> None:
    nothing: Any = None
    simulation = Simulation(torch.nn.Flatten(), nothing, None, torch.zeros(600, 10))
    example = torch.zeros(2, 3, side, side)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Simulation, "example", property(lambda self: example))
        assert probes._most(simulation) == most


@pytest.mark.usefixtures("alone", "needs_onnx")
def test_an_export_prints_a_line_for_each_runtime(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data), "--images", "40"]
    words += ["--to", "state_dict", "--out", str(tmp_path / "a.pt")]
    assert main(["export", finished.recipe(SEVEN).key, *words]) == 0
    said = capsys.readouterr().out
    assert "onnxruntime: 0 of 40 answers differ" in said and "openvino: skipped, not here" in said
    assert agreement.few_images(40) in said
