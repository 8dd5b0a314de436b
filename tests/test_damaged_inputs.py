"""What is damaged, or made to fill the memory, is an error in a line."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from suite.data.arrays import of_npz
from suite.data.datasets import of_training_images
from suite.data.workers import default_workers
from suite.networks import build, checkpoint_files, recognize
from suite.networks.checkpoint_reading import read
from suite.recipe import Dataset, Network
from suite.recipe.errors import SuiteError


def arrays(folder: Path) -> Path:
    pixels = (np.arange(100 * 16 * 16 * 3).reshape(100, 16, 16, 3) // 7 % 13).astype(np.uint8)
    labels = np.arange(100) % 10
    file = folder / "own.npz"
    np.savez_compressed(file, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return file


def test_a_changed_byte_in_compressed_arrays_is_an_error_in_a_line(tmp_path: Path) -> None:
    file = arrays(tmp_path)
    whole, refused = file.read_bytes(), 0
    for place in range(0, len(whole), 17):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        file.write_bytes(changed)
        try:
            of_npz(file, "train")
        except SuiteError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30, "most bytes matter"


def test_arrays_that_do_not_fit_into_the_memory_are_an_error_in_a_line(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = (10**12, 32, 32, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(SuiteError, match="is no .npz of plain arrays: "):
        of_npz(tmp_path / "own.npz", "train")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sparse", "conv1.weight is sparse_coo; save the weights dense"),
        (
            "repeated",
            r"linear.weight is of shape \[2000000000, 64\], 512,000,000,000 bytes, of which the file has 4;",
        ),
        (
            "meta",
            r"linear.weight is of shape \[2000000000, 64\], 512,000,000,000 bytes, of which the file has 0;",
        ),
    ],
)
def test_weights_that_nothing_can_be_computed_with_are_refused_before_a_network_is_built(
    tmp_path: Path, kind: str, words: str
) -> None:
    network = Network("resnet20", "A")
    state = build(network).state_dict()
    if kind == "sparse":
        state["conv1.weight"] = state["conv1.weight"].to_sparse()
    else:
        last = torch.zeros(1) if kind == "repeated" else torch.zeros(1, device="meta")
        state["linear.weight"] = last.expand(2 * 10**9, 64)
        state["linear.bias"] = last.expand(2 * 10**9)
    torch.save(state, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 5e6
    with pytest.raises(SuiteError, match=words):
        checkpoint_files.load_weights(network, tmp_path / "x.pt")
    with pytest.raises(SuiteError, match=words):
        recognize.matches(read(tmp_path / "x.pt"), tmp_path / "x.pt", "resnet20")


def test_an_image_that_says_to_be_huge_is_an_error_in_a_line(tmp_path: Path) -> None:
    def part(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    image = (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + part(b"IDAT", zlib.compress(b"\0"))
        + part(b"IEND", b"")
    )
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "own" / place).mkdir(parents=True)
        (tmp_path / "own" / place / "x.png").write_bytes(image)
    with pytest.raises(SuiteError, match=r"x.png is no image: Image size \(400000000 pixels\) exceeds limit"):
        of_training_images(Dataset("own"), tmp_path)


@pytest.mark.parametrize("left", ["0", "abc", "-1", "", "1e3"])
def test_what_another_launcher_left_is_no_number_of_ranks(monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    monkeypatch.delenv("SUITE_DATA_WORKERS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = default_workers()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", left)
    assert default_workers() == alone
