"""Damage to the record of an array of jobs is noticed, wherever it is; records of older versions are read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from slurm.arrays import Array
from slurm.attempts import Task
from slurm.cluster import Cluster
from slurm.sender import Sender
from suite.recipe.errors import SuiteError
from suite.record.files import Folders, write_json

ARRAY = Array(
    (("0123456789abcdef",), ("fedcba9876543210",)), 1, "me", (("suite-0", 3),), job_id="4711", retries={"node": 5},
    trains=False,
)  # fmt: skip


def recorded(folder: Path) -> Path:
    file = folder / "slurm" / ARRAY.name / "array.json"
    file.parent.mkdir(parents=True)
    ARRAY.write(file)
    return file


@pytest.mark.parametrize("damage", ["half", "a key", "the owner", "no object", "brackets"])
def test_a_record_of_an_array_that_is_damaged_is_refused_with_what_to_do(tmp_path: Path, damage: str) -> None:
    file = recorded(tmp_path)
    sender = Sender(Folders(tmp_path, tmp_path), Cluster())
    assert sender.arrays() == [ARRAY]
    text = file.read_text()
    changed = {
        "half": text[: len(text) // 2],
        "a key": text.replace("0123", "1123"),
        "the owner": text.replace('"me"', '"mf"'),
        "no object": "7",
        "brackets": "[" * 100_000,
    }
    file.write_text(changed[damage])
    remedy = (
        f"is damaged; end its jobs with scancel --name={ARRAY.name}, remove {file.parent} and launch again"
    )
    with pytest.raises(SuiteError, match=re.escape(remedy)):
        sender.arrays()
    with pytest.raises(SuiteError, match=re.escape(remedy)):
        _ = Task(file, 0, tmp_path).content


def test_a_bit_that_flips_in_any_byte_of_a_record_is_noticed(tmp_path: Path) -> None:
    """Those of job_id, world_size, trains, retries and after too, which are not in the name of the array."""
    file = recorded(tmp_path)
    sender, whole = Sender(Folders(tmp_path, tmp_path), Cluster()), file.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(SuiteError, match="is damaged"):
            sender.arrays()
        with pytest.raises(SuiteError, match="is damaged"):
            _ = Task(file, 0, tmp_path).content
    file.write_bytes(whole)
    assert sender.arrays() == [ARRAY]


def test_the_record_of_a_sweep_that_an_older_version_sent_is_read(tmp_path: Path) -> None:
    file = recorded(tmp_path)
    write_json(dataclasses.asdict(ARRAY), file)
    assert b"crc32" not in file.read_bytes()
    assert Sender(Folders(tmp_path, tmp_path), Cluster()).arrays() == [ARRAY]
    assert Task(file, 1, tmp_path).keys == ["fedcba9876543210"]
