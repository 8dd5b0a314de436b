"""Files are written whole or not at all, and what is not installed is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.export import exporting
from suite.recipe.errors import SuiteError


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_json", full)
    with pytest.raises(SuiteError, match="cannot be written: No space left on device; free some space"):
        exporting._write({".xml": b"content", ".bin": b"weights"}, {}, tmp_path / "a.xml")
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        SuiteError, match=r"needs onnx, onnxscript, onnxruntime.*quantization-suite\[export\]"
    ):
        exporting.check_installed()
