"""A result is not taken over where its method's file or its data are others by now."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import ROOT
from fakes.statuses import status_of
from fakes.trainings import digits
from fakes.waiting import limit

from suite import methods
from suite.data import datasets
from suite.data.images import Images
from suite.launch.unchanged import check_unchanged
from suite.methods.amax import Amax
from suite.ranks import Ranks
from suite.recipe import Recipe, Stage, Training, plan
from suite.recipe.errors import SuiteError
from suite.recipe.sources import source_sha256, sources
from suite.record import provenance
from suite.record.files import Folders
from suite.record.journal import Journal, read_events
from suite.run.stage import run

MINE = """
from dataclasses import dataclass
from typing import ClassVar
from suite.methods.amax import Amax

@dataclass(frozen=True)
class Mine(Amax):
    name: ClassVar[str] = "mine"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a method of one's own."""
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def imported(file: Path) -> Any:
    """Its class, as a process that starts now has it."""
    spec = importlib.util.spec_from_file_location("mine", file)
    assert spec is not None and spec.loader is not None
    sys.modules["mine"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source_sha256.cache_clear()
    return module.Mine


def check(stages: tuple[Stage, ...], runs: Path) -> None:
    check_unchanged([status_of(stage, runs) for stage in stages], runs / "data")


def test_a_run_records_its_methods_files_of_the_package_and_a_users_file_is_in_its_key(
    file: Path, tmp_path: Path, tiny_training: Training
) -> None:
    runs, stages = tmp_path / "runs", plan([Recipe(tiny_training, imported(file)())])
    for stage in stages:
        run(stage, Ranks(), Folders(runs, tmp_path))
    assert read_events(runs / stages[1].key)[0]["sources"].keys() == {"suite.methods.amax"}
    assert "sources" in read_events(runs / stages[0].key)[0]
    check(stages, runs)

    file.write_text(MINE + "# another rounding\n")
    changed = plan([Recipe(tiny_training, imported(file)())])
    assert [old.key == new.key for old, new in zip(stages, changed, strict=True)] == [True, False]
    check(changed, runs)  # it is run again

    file.write_text(MINE)
    assert plan([Recipe(tiny_training, imported(file)())])[1].key == stages[1].key


def left(runs: Path, stage: Stage, *events: dict[str, Any], state: str) -> None:
    """What a run of the stage leaves that came so far."""
    journal = Journal(runs / stage.key)
    for event in events:
        journal.write(**event)
    if state == "done":
        journal.finish(stage.key, top1=90.0, top5=99.0, loss=1.0, images=599)
    if state == "saved":
        (runs / stage.key / "resume-0000000001-0123456789abcdef.pt").touch()
    journal.close()


@pytest.mark.parametrize(("state", "matters"), [("done", True), ("saved", True), ("failed", False)])
def test_other_images_than_those_of_a_result_or_of_a_saved_state_are_an_error(
    tmp_path: Path, tiny_training: Training, state: str, matters: bool
) -> None:
    (tmp_path / tiny_training.key).mkdir()
    data = {"event": "data", "split": "train", "images": 1198}
    left(tmp_path, tiny_training, {"event": "started"}, {**data, "sha256": "0" * 64}, state=state)
    if not matters:
        return check((tiny_training,), tmp_path)
    words = f"the train images of digits in {tmp_path}/data are not those that train resnet20 .* read; name the folder"
    with pytest.raises(SuiteError, match=words):
        check((tiny_training,), tmp_path)


def test_the_same_images_and_those_that_are_not_there_are_no_error(
    tmp_path: Path, tiny_training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / tiny_training.key).mkdir()
    whole = datasets.load(tiny_training.dataset, "train", tmp_path, torch.device("cpu"))
    data = {"event": "data", "split": "train", "images": 1198, "sha256": whole.digest}
    left(tmp_path, tiny_training, {"event": "started"}, data, state="done")
    check((tiny_training,), tmp_path)

    fewer = digits(10)

    def loaded(*_: object) -> Images:
        return fewer

    monkeypatch.setattr(datasets, "load", loaded)
    with pytest.raises(SuiteError, match="the train images of digits"):
        check((tiny_training,), tmp_path)

    def missing(*_: object) -> Images:
        raise SuiteError("it is not there")

    monkeypatch.setattr(datasets, "load", missing)
    check((tiny_training,), tmp_path)


def test_a_run_of_an_older_version_recorded_no_sources_and_is_kept(
    tmp_path: Path, tiny_training: Training
) -> None:
    (tmp_path / tiny_training.key).mkdir()
    left(tmp_path, tiny_training, {"event": "started"}, state="done")
    check((tiny_training,), tmp_path)


@pytest.mark.parametrize(("git_has_it", "matters"), [(True, False), (False, True)])
def test_a_file_of_the_package_is_compared_only_while_git_has_not_committed_it(
    tmp_path: Path, tiny_training: Training, monkeypatch: pytest.MonkeyPatch, git_has_it: bool, matters: bool
) -> None:
    recipe = Recipe(tiny_training, Amax())
    (tmp_path / recipe.key).mkdir()
    left(tmp_path, recipe, {"event": "started", "sources": {"suite.methods.amax": "0" * 64}}, state="done")
    monkeypatch.setattr("suite.launch.unchanged.is_committed", lambda file: git_has_it)
    if not matters:
        return check((recipe,), tmp_path)
    with pytest.raises(SuiteError, match=r"suite/methods/amax.py has changed since amax w8a8"):
        check((recipe,), tmp_path)


def test_committed_is_what_git_has_just_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("a")
    assert not provenance.is_committed(tmp_path / "a.py"), "there is no git"
    git("init")
    assert not provenance.is_committed(tmp_path / "a.py"), "git does not know it"
    git("add", "a.py")
    assert not provenance.is_committed(tmp_path / "a.py"), "it is only staged"
    git("commit", "-m", "a")
    assert provenance.is_committed(tmp_path / "a.py")
    (tmp_path / "a.py").write_text("b")
    assert not provenance.is_committed(tmp_path / "a.py"), "it is changed"


def test_every_shipped_method_says_its_files_and_those_it_inherits_from(tiny_training: Training) -> None:
    for name, kind in methods.find().items():
        found = sources(Recipe(tiny_training, kind()))
        assert f"suite.methods.{name}" in found
        assert all(module.startswith("suite.methods.") for module in found)
    assert "suite.methods.qat_asymmetric" in sources(Recipe(tiny_training, methods.find()["qat_symmetric"]()))


@pytest.mark.long
def test_editing_a_method_inside_a_copy_of_the_package_stops_the_next_launch(tmp_path: Path) -> None:
    """The whole way, by the commands of a user without git."""
    shutil.copytree(ROOT / "suite", tmp_path / "suite")
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    method = tmp_path / "suite" / "methods" / "mine.py"
    method.write_text(MINE)
    (tmp_path / "own.py").write_text(
        "from suite.methods.mine import Mine\nfrom suite.recipe import *\n\ndef sweep():\n"
        "    sgd = Sgd(1, 256, 0.05, pad=1, flip=False, precision=Precision('O0'))\n"
        "    return [Recipe(Training(Network(), Dataset('digits', size=8), sgd), Mine())]\n"
    )

    def launch() -> tuple[int, str]:
        command = [sys.executable, "-m", "suite", "launch", "own.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=limit(300))
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    assert launch()[0] == 0
    assert "own: all is done" in launch()[1]
    method.write_text(MINE + "# something else\n")
    status, said = launch()
    assert status == 2 and "mine.py has changed since mine w8a8" in said and "raise its `revision`" in said
