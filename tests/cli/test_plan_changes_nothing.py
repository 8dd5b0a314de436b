"""Planning changes nothing that was launched, and a launch says so before it takes a sweep's place."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from suite.cli.main import main
from suite.recipe import plan
from suite.sweeps import find
from suite.sweeps.stored import check_keeps, load_sweep, save_sweep

OWN = """
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(seeds: int = 2, lr: float = 0.05):
    sgd = Sgd(epochs=1, batch=256, lr=lr, pad=1, flip=False, precision=Precision("O2"))
    trainings = [Training(Network(), Dataset("digits", size=8), sgd, seed) for seed in range(seeds)]
    return [Recipe(training, Amax()) for training in trainings]
"""


class User:
    """Somebody with a sweep of his own in a folder, and its runs."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.runs, self.capsys = folder / "own.py", folder / "runs", capsys
        self.file.write_text(OWN)
        self.record = self.runs / "sweeps" / "own.json"

    def __call__(self, *words: str) -> str:
        main([words[0], str(self.file), *words[1:], "--runs", str(self.runs)])
        said = self.capsys.readouterr()
        return " ".join((said.out + said.err).split())

    def launched(self, *words: str) -> bytes:
        """The record of a launch, as it was written."""
        listed, options = find(str(self.file)).stages(words)
        save_sweep(self.runs, "own", options, plan(listed))
        return self.record.read_bytes()


@pytest.fixture
def user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> User:
    return User(tmp_path, capsys)


def test_planning_other_stages_leaves_a_launched_sweep_as_it_is_and_says_so(user: User) -> None:
    before = user.launched()
    for words in (["--seeds", "1"], ["--seeds", "3"], ["--lr", "0.1"]):
        said = user("plan", *words)
        assert "own was launched with other stages and stays as it is; to record this plan, name it" in said
        assert user.record.read_bytes() == before
    assert "stays as it is" not in user("plan")
    assert user.record.read_bytes() == before
    assert len(load_sweep(user.runs, "own")) == 4


def test_a_plan_of_another_name_is_recorded_so_that_its_keys_can_be_run(user: User) -> None:
    before = user.launched()
    assert "stays as it is" not in user("plan", "--seeds", "1", "--name", "smaller")
    assert len(load_sweep(user.runs, "smaller")) == 2
    assert user.record.read_bytes() == before


def test_a_plan_takes_the_place_of_a_plan_of_which_nothing_was_run(user: User) -> None:
    user("plan")
    assert "stays as it is" not in user("plan", "--seeds", "1")
    stages = load_sweep(user.runs, "own")
    assert len(stages) == 2
    folder = user.runs / stages[0].key
    folder.mkdir()
    (folder / "events.jsonl").write_text("{}\n")  # run by hand, as `suite run KEY` does
    assert "stays as it is" in user("plan", "--lr", "0.1")
    assert load_sweep(user.runs, "own") == stages


def test_a_launch_of_other_stages_asks_for_another_name_or_to_replace(user: User) -> None:
    before = user.launched()
    for words in (["--seeds", "1"], ["--lr", "0.1"]):
        said = user("launch", *words)
        assert "own was launched in" in said and "stages that this one lacks, first: train resnet20" in said
        assert "keep both with --name ANOTHER, or let this one take its place with --replace" in said
        assert user.record.read_bytes() == before
    for words in (["--seeds", "1", "--replace"], ["--lr", "0.1", "--name", "other"], ["--seeds", "3"], []):
        assert "lacks" not in user("launch", *words, "--workers", "1", "--only", "nothing like it")


def test_a_record_of_an_older_version_counts_as_launched(user: User) -> None:
    user.launched()
    content = json.loads(user.record.read_text())
    del content["launched"]
    user.record.write_text(json.dumps(content))
    assert "stays as it is" in user("plan", "--seeds", "1")
    assert "lacks" in user("launch", "--seeds", "1")


def test_a_name_that_leaves_the_folder_is_refused_before_anything_is_read(user: User) -> None:
    for command in ("plan", "launch"):
        assert "sweep name '../own' is unusable" in user(command, "--name", "../own")


def test_a_growing_sweep_loses_nothing(user: User) -> None:
    user.launched()
    listed, _ = find(str(user.file)).stages(["--seeds", "3"])
    check_keeps(user.runs, "own", plan(listed))


def test_a_runs_folder_that_is_read_only_shows_its_plan_and_says_so(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(content: object, file: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(file))

    monkeypatch.setattr("suite.sweeps.stored.write_json", refused)
    said = user("plan")
    assert "4 stages" in said and "runs is read-only, so the plan is not recorded" in said
    monkeypatch.setattr("suite.cli.launching.check_keeps", lambda *_: refused(None, user.record))
    assert "own.json cannot be written: its disk is read-only; choose another folder" in user("launch")
