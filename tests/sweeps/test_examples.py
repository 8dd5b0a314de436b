"""The sweeps of docs/examples run as a user runs them: copied into a folder of one's own, in a tiny form."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes import ROOT
from fakes.forking import Forked

from suite import methods
from suite.data.complete import completed
from suite.launch import preflight
from suite.ranks import Ranks
from suite.recipe import user_files
from suite.record.files import Folders
from suite.record.journal import read_outcome
from suite.run.stage import run
from suite.sweeps import find


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the examples, and a cifar10.npz of 300 images to train on."""
    monkeypatch.setattr(user_files, "BESIDE", [])
    for file in (ROOT / "docs/examples").glob("*.py"):
        shutil.copy(file, tmp_path)
    generator = np.random.default_rng(0)
    content = {}
    for split, count in (("train", 300 * 50), ("test", 20 * 20)):
        content[f"x_{split}"] = np.repeat(
            generator.integers(0, 256, (10, 32, 32, 3), np.uint8), count // 10, 0
        )
        content[f"y_{split}"] = np.repeat(np.arange(10), count // 10)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/cifar10.npz", **content)
    return tmp_path


def test_a_network_a_data_set_and_a_method_of_a_users_files_run_together(folder: Path) -> None:
    words = ["--networks", "vgg.py:Vgg", "--datasets", "cifar10", "--epochs", "1"]
    folders = Folders(folder / "runs", folder / "data")
    stages = completed(find(str(folder / "three_networks.py")).stages(words)[0], folders.data)
    clipped = [stage for stage in stages if stage.name.startswith("clipped w4a4")]
    preflight.check(clipped, folders, 1, download=False)
    for stage in (*clipped[0].needs, *clipped):
        run(stage, Ranks(), folders)
        outcome = read_outcome(folders.runs / stage.key)
        assert outcome is not None and outcome["images"] == 20


def test_every_method_is_in_the_sweep_that_tries_all(folder: Path) -> None:
    stages, _ = find(str(folder / "every_method.py")).stages(["--networks", "vgg.py:Vgg"])
    assert {stage.params["method"] for stage in stages} == set(methods.find())


@pytest.mark.long
def test_three_networks_on_two_data_sets_end_in_one_report(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def suite(*words: str) -> str:
        process = Forked(words, folder, environment)
        said, _ = process.communicate(timeout=1200)
        assert process.returncode == 0, said
        return str(said)

    assert "42 stages: 42 done" in suite(
        "launch", "three_networks.py", "--epochs", "1", "--workers", "1"
    ).replace("\n", " ")
    suite("report", "three_networks", "--out", "report")
    table = (folder / "report/table.md").read_text()
    for words in (
        "torchvision/mobilenet_v2",
        "torchvision/resnet18",
        "vgg.py:Vgg",
        "digits",
        "part.py:cifar10",
    ):
        assert words in table, table


@pytest.mark.long
def test_every_method_runs_on_a_network_of_a_users_file_or_is_refused_before_it_runs(folder: Path) -> None:
    process = Forked(
        ("launch", "every_method.py", "--networks", "vgg.py:Vgg", "--epochs", "1", "--workers", "1"),
        folder,
        {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    said, _ = process.communicate(timeout=1200)
    count = len(methods.find()) + 1
    assert f"{count} stages: {count} done" in str(said).replace("\n", " "), said
