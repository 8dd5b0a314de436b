"""Files are written whole or not at all, and what is not installed is named."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from suite.export import exporting
from suite.export.request import Request
from suite.export.runtimes import check_installed
from suite.recipe.errors import SuiteError


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_json", full)
    with pytest.raises(SuiteError, match="cannot be written: No space left on device; free some space"):
        exporting._write({".xml": b"content", ".bin": b"weights"}, {}, tmp_path / "a.xml")
    assert not list(tmp_path.iterdir())


def test_an_export_that_was_there_stays_where_a_new_one_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewrite that fails at any of its files keeps all of the old ones, and nothing else."""
    file, old = tmp_path / "a.xml", {".xml": b"old", ".bin": b"weights"}
    exporting._write(old, {"of": "the old"}, file)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert set(before) == {"a.xml", "a.bin", "a.xml.json"}
    write = exporting.write_bytes

    def full(content: bytes, to: Path) -> None:
        if content == b"new weights":
            raise OSError(28, "No space left on device")
        write(content, to)

    monkeypatch.setattr(exporting, "write_bytes", full)
    with pytest.raises(SuiteError, match="No space left on device"):
        exporting._write({".xml": b"new", ".bin": b"new weights"}, {"of": "the new"}, file)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_an_export_that_is_interrupted_leaves_nothing_but_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C, while the bytes of its second file are on their way to the disk."""
    file = tmp_path / "a.xml"
    exporting._write({".xml": b"old", ".bin": b"weights"}, {"of": "the old"}, file)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    synced = iter([None])

    def interrupted(number: int) -> None:
        if next(synced, number) is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exporting._write({".xml": b"new", ".bin": b"new weights"}, {"of": "the new"}, file)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_files_of_two_formats_of_a_recipe_have_a_record_each(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.safetensors"):
        exporting._write({Path(name).suffix: b"content"}, {"of": name}, tmp_path / name)
    assert [json.loads(one.read_text())["of"] for one in sorted(tmp_path.glob("*.json"))] == [
        "a.onnx",
        "a.safetensors",
    ]


@pytest.mark.parametrize("there", ["a.xml", "a.bin", "a.xml.json"])
def test_a_folder_or_a_device_in_the_place_of_a_file_is_refused_before_anything_is_computed(
    tmp_path: Path, there: str
) -> None:
    """As root an export to /dev/null would replace it by a file."""
    os.mkfifo(tmp_path / there)
    with pytest.raises(SuiteError, match=f"{there} is there, and is no regular file"):
        Request("openvino", tmp_path / "a.xml").file("key")
    (tmp_path / there).unlink()
    (tmp_path / there).mkdir()
    with pytest.raises(SuiteError, match=f"{there} is there, and is no regular file"):
        Request("openvino", tmp_path / "a.xml").file("key")


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SuiteError) as raised:
        check_installed()
    assert str(raised.value) == (
        "ONNX needs onnx, onnxscript, onnxruntime, not installed here; "
        f"in the suite's folder: {sys.executable} -m pip install --editable '.[export]'"
    )
