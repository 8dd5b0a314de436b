"""Damage to the record of an array of jobs, or to the code that jobs run, is noticed; older records are read."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm import client
from slurm.arrays import Array
from slurm.attempts import Task
from slurm.cluster import Cluster
from slurm.sender import Sender
from suite.recipe.errors import SuiteError
from suite.record.files import Folders, write_json
from suite.record.provenance import ROOT

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


def test_no_link_beside_the_record_of_an_array_is_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in somebody else's runs folder may lead to a file of the user's."""
    secret, folder = tmp_path / "secret", recorded(tmp_path / "runs").parent
    secret.write_text("mine\n")
    for name in ("turns-0.jsonl", "ended-0.0", "sbatch.sh", "../lock"):
        (folder / name).symlink_to(secret)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    sender = Sender(Folders(tmp_path / "runs", tmp_path), Cluster())
    task = sender.task(ARRAY, 0)
    with pytest.raises(OSError, match="is a link"):
        task._note(number=0)
    task.settle(3)
    assert (folder / "ended-0.0").read_text() == "3\n" and not (folder / "ended-0.0").is_symlink()
    monkeypatch.setattr(client, "ask", lambda *_, **__: "4711\n")
    sender._send(ARRAY, "text \udcff", 0)
    assert (folder / "sbatch.sh").read_bytes() == b"text \xff", "also where a folder's name is no UTF-8"
    with pytest.raises(OSError, match="lock"), sender.only_one():
        pass
    assert secret.read_text() == "mine\n"


def test_a_bit_that_flips_in_the_record_of_an_attempt_is_noticed(tmp_path: Path) -> None:
    """Its number, say: an attempt that seems to have a successor is not queued again."""
    file = recorded(tmp_path)
    task, attempts = Task(file, 0, tmp_path), file.with_name("turns-0.jsonl")
    begun = {"number": 0, "job": "4711", "nodes": "n1", "began": 5.0, "reached": 0, "logs": {}, "events": {}}
    task._note(**begun)
    whole, [attempt] = attempts.read_bytes(), task.attempts
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        attempts.write_bytes(flipped)
        assert task.attempts in ([], [attempt])
    attempts.write_bytes(whole[:-9])
    task._note(**begun | {"number": 1})
    assert [one.number for one in task.attempts] == [1], "what was torn does not swallow the next line"


def everything(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()
    } | {path.relative_to(folder): b"a link" for path in folder.rglob("*") if path.is_symlink()}


def _linked(copy: Path) -> None:
    copy.rename(copy.with_name("elsewhere"))
    copy.symlink_to(copy.with_name("elsewhere"))


def _link_inside(copy: Path) -> None:
    (copy / "slurm").rename(copy.with_name("elsewhere"))
    (copy / "slurm").symlink_to(copy.with_name("elsewhere"))


def _linked_twice(copy: Path) -> None:
    _linked(copy)
    for ending in (".old", ".writing"):
        (copy.parent / "more").mkdir(exist_ok=True)
        copy.with_suffix(ending).symlink_to(copy.parent / "more")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "links in the place of what is made beside it": _linked_twice,
    "changed": lambda copy: (copy / "suite" / "__init__.py").write_text("import os"),
    "purged": lambda copy: (copy / "slurm" / "worker.py").unlink(),
    "purged but for its folders": lambda copy: [file.unlink() for file in copy.rglob("*.*")],
    "a module more": lambda copy: (copy / "torch.py").write_text("import os"),
    "bytecode": lambda copy: (copy / "suite" / "__pycache__" / "x.pyc").write_bytes(b"?"),
    "the commit": lambda copy: (copy / "commit.json").write_text("{"),
    "another commit": lambda copy: (copy / "commit.json").write_text("7"),
    "a link to it": _linked,
    "a link in it": _link_inside,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_copy_of_the_code_is_read_again_and_replaced_where_it_differs(
    tmp_path: Path, damage: str
) -> None:
    sender = Sender(Folders(tmp_path, tmp_path), Cluster())
    copy = sender._snapshot()
    whole = everything(copy)
    texts = {name: text for name, text in whole.items() if name != Path("commit.json")}
    assert texts == {name: (ROOT / name).read_bytes() for name in texts} and len(texts) > 50
    (copy / "suite" / "__pycache__").mkdir()
    DAMAGES[damage](copy)
    assert sender._snapshot() == copy
    assert everything(copy) == whole and not copy.is_symlink()
    inode = (copy / "suite").stat().st_ino
    assert sender._snapshot() == copy and (copy / "suite").stat().st_ino == inode, "one that is whole stays"


def test_a_job_whose_record_is_damaged_ends_with_what_to_do(tmp_path: Path) -> None:
    file = recorded(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"4711", b"4701"))
    words = [sys.executable, "-m", "slurm.attempts", str(file), str(tmp_path), "1"]
    names = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n1"}
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | names
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {file} is damaged; end its jobs with scancel --name={ARRAY.name}")
