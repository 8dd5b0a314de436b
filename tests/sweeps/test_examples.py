"""The sweeps of docs/examples run as a user runs them: copied into a folder of one's own, in a tiny form."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes import ROOT

from suite import methods
from suite.cli.main import main
from suite.data.complete import completed
from suite.launch import preflight
from suite.ranks import Ranks
from suite.recipe import plan, user_files
from suite.record.files import Folders
from suite.record.journal import read_outcome
from suite.run.stage import run
from suite.sweeps import find
from suite.sweeps.stored import save_sweep


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


def run_all(folder: Path, name: str, *words: str) -> set[str]:
    """Every stage of a sweep, one after the other in this process, as workers run them; the methods that ran."""
    folders = Folders(folder / "runs", folder / "data")
    stages, options = find(str(folder / f"{name}.py")).stages(words)
    whole = plan(completed(stages, folders.data))
    preflight.check(whole, folders, 1, download=False)
    save_sweep(folders.runs, name, options, whole)
    for stage in whole:
        run(stage, Ranks(), folders)
        outcome = read_outcome(folders.runs / stage.key)
        assert outcome is not None and outcome["images"] in (20, 599), stage.name
    return {str(stage.params["method"]) for stage in whole}


@pytest.mark.long
def test_three_networks_on_two_data_sets_end_in_one_report(folder: Path) -> None:
    run_all(folder, "three_networks", "--epochs", "1")
    words = ["--runs", str(folder / "runs"), "--out", str(folder / "report")]
    assert main(["report", "three_networks", *words]) == 0
    table = (folder / "report/three_networks/table.md").read_text()
    for words in (
        "torchvision/mobilenet_v2",
        "torchvision/resnet18",
        "vgg.py:Vgg",
        "digits",
        "part.py:cifar10",
    ):
        assert words in table, table


@pytest.mark.long
def test_every_method_runs_on_a_network_of_a_users_file(folder: Path) -> None:
    ran = run_all(folder, "every_method", "--networks", "vgg.py:Vgg", "--epochs", "1")
    assert ran == {"float", *methods.find()}
