"""An ONNX file that is there is compared by what it says itself, and one that is no good is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.exported import Finished

from suite.cli.main import main
from suite.export.exporting import export
from suite.export.file_check import compare
from suite.export.request import Request, record_of
from suite.methods.mse import Mse
from suite.recipe import Calibration

CALIBRATION = Calibration(images=128, batch=64)
EIGHT = Mse(8, 8, feed=CALIBRATION)


@pytest.fixture
def exported(finished: Finished, tmp_path: Path, needs_onnx: None) -> Path:
    return export(finished.recipe(EIGHT), finished.folders, Request(out=tmp_path / "a.onnx", images=50))[0]


def test_a_file_is_compared_on_this_machine_and_a_damaged_or_foreign_one_is_refused(
    finished: Finished, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    folders = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data)]
    words = ["export", finished.recipe(EIGHT).key, "--images", "50", *folders, "--compare"]

    def refused(reason: str) -> None:
        assert main([*words, str(exported)]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert reason in said and "Traceback" not in said

    assert main([*words, str(exported)]) == 0
    assert "0 of 50 answers differ" in capsys.readouterr().out
    content, beside = exported.read_bytes(), record_of(exported)
    exported.write_bytes(content[:-100])
    refused("is damaged or was changed: its sha256 is")
    beside.rename(beside.with_suffix(".kept"))
    for damaged in (content[: len(content) // 2], b"", b"no onnx at all"):
        exported.write_bytes(damaged)
        refused("is no ONNX file, or damaged")
    made = onnx.load_from_string(content)
    made.opset_import[0].version = 999
    exported.write_bytes(made.SerializeToString())
    refused("(opset 999): ONNX Runtime ")
    assert main([*words, str(exported)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Current official support for domain ai.onnx is till opset" in said, "the reason is whole"
    assert "ValidateOpsetForDomain" not in said
    made = onnx.load_from_string(content)
    made.graph.output[0].name = made.graph.node[-1].output[0] = "scores"
    exported.write_bytes(made.SerializeToString())
    refused("a file of `suite export` goes from images to logits")
    exported.unlink()
    refused("cannot be read: No such file or directory")
    for folder in (".", "..", "/"):
        assert main([*words, folder]) == 2
        assert "is no regular file; name an ONNX file" in " ".join(capsys.readouterr().err.split())
    exported.write_bytes(content)
    beside.write_text("{")
    refused("the record beside the file, cannot be read")
    beside.unlink()
    made = onnx.load_from_string(content)
    onnx.helper.set_model_props(made, {"key": "another", "name": "other"})
    exported.write_bytes(made.SerializeToString())
    refused("was exported of other (another)")


def test_a_file_without_its_record_is_compared_by_what_it_says_itself(
    finished: Finished, tmp_path: Path
) -> None:
    """A user takes the file alone to another machine; its convention decides with what it is compared."""
    recipe = finished.recipe(Mse(4, 4, feed=CALIBRATION))
    request = Request(out=tmp_path / "a.onnx", integer_everywhere=True, images=50, probes=False)
    file, beside, _ = export(recipe, finished.folders, request)
    beside.unlink()
    record = compare(recipe, finished.folders, file, 50)
    assert record["agreement"]["same_arithmetic"]["mean_difference"] < 1e-6
