"""Packages, linked files and what lies beside a file come along to workers; what does not is missed before."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from fakes.user_files import METHOD, NETWORK, SWEEP, forget

from suite.launch import user_files_check
from suite.launch.user_files_check import check_user_files
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training, plan, user_files
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.sweeps import stored

SGD = Sgd(1, 128, 0.05, pad=1, flip=False, precision=Precision("O0"))


PACKAGE = {
    "project/__init__.py": "",
    "project/nets/__init__.py": "WIDTH = 3\n",
    "project/nets/blocks.py": "from . import WIDTH\nfrom ..parts import SCALE\n",
    "project/nets/my_net.py": "from .blocks import SCALE, WIDTH\n\ndef build():\n    return SCALE, WIDTH\n",
    "project/parts.py": "from helpers.numbers import SCALE\n",
    "project/methods.py": "from project.parts import SCALE\n"
    + METHOD.replace("from my_parts import SCALE", ""),
    "helpers/numbers.py": "SCALE = 0.5\n",
    "own.py": SWEEP.replace("my_methods", "project.methods"),
}
"""A package with relative imports, and a folder without __init__.py beside it."""


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_file_of_a_package_takes_the_package_and_what_lies_beside_it_to_workers(
    tmp_path: Path, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = written(tmp_path / "mine", PACKAGE)
    monkeypatch.chdir(mine)
    reference = user_files.resolved("project/nets/my_net.py:build")
    assert reference.name == "my_net.py:build" and user_files.load(reference)() == (0.5, 3)
    user_files.keep({"name": reference.name, "sha256": reference.sha256}, tmp_path)
    kept = tmp_path / user_files.KEPT / reference.sha256
    assert {file.relative_to(kept).as_posix() for file in kept.rglob("*.py")} == PACKAGE.keys() - {"own.py"}
    for name in ("helpers/numbers.py", "project/nets/blocks.py", "project/nets/__init__.py"):
        (mine / name).write_text(PACKAGE[name] + "# changed\n")
        assert user_files.resolved("project/nets/my_net.py:build").sha256 != reference.sha256, name
        (mine / name).write_text(PACKAGE[name])
    shutil.rmtree(mine)
    monkeypatch.chdir(tmp_path)
    forget(monkeypatch)
    user_files.find_kept({"name": reference.name, "sha256": reference.sha256}, tmp_path)
    assert user_files.load(reference)() == (0.5, 3)
    assert sys.modules["project.nets.my_net"].__file__ == str(kept / "project/nets/my_net.py")


def test_a_method_of_a_package_is_found_by_workers(
    tmp_path: Path, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite.sweeps import find

    mine, runs = written(tmp_path / "mine", {**PACKAGE, "my_net.py": NETWORK}), tmp_path / "runs"
    stages = plan(find(str(mine / "own.py")).stages([])[0])
    stored.save_sweep(runs, "own", {}, stages)
    shutil.rmtree(mine)
    forget(monkeypatch)
    read = stored.load_sweep(runs, "own", checked=True)
    assert [stage.key for stage in read] == [stage.key for stage in stages]
    assert isinstance(read[1], Recipe) and read[1].method.scale == 0.5  # type: ignore[attr-defined]


def test_a_linked_file_is_kept_under_its_own_name(tmp_path: Path, forgetful: None) -> None:
    (tmp_path / "version7.py").write_text(NETWORK)
    (tmp_path / "my_net.py").symlink_to("version7.py")
    reference = user_files.resolved(f"{tmp_path}/my_net.py:build")
    user_files.keep({"name": reference.name, "sha256": reference.sha256}, tmp_path)
    assert (tmp_path / user_files.KEPT / reference.sha256 / "my_net.py").read_text() == NETWORK


def test_an_error_in_what_a_file_imports_is_said_with_both_lines(tmp_path: Path, forgetful: None) -> None:
    (tmp_path / "my_parts.py").write_text("def scale():\n    return 1 / 0\n")
    (tmp_path / "one.py").write_text("from my_parts import scale\nSCALE = scale()\n")
    with pytest.raises(SuiteError, match=r"one.py, line 2, in .*my_parts.py, line 2: ZeroDivisionError"):
        user_files.load(user_files.resolved(f"{tmp_path}/one.py:build"))
    (tmp_path / "other.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n")
    with pytest.raises(
        SuiteError, match=r"other.py, line 2: it ends the process \(exit status 2\), as a script"
    ):
        user_files.load(user_files.resolved(f"{tmp_path}/other.py:build"))


def test_what_only_the_users_own_folder_has_is_missed_before_anything_runs(
    tmp_path: Path, forgetful: None
) -> None:
    """Workers have copies of Python files alone: not of a file of settings beside one."""
    (tmp_path / "settings.json").write_text("{}")
    reads = "from pathlib import Path\nTEXT = (Path(__file__).parent / 'settings.json').read_text()\n"
    (tmp_path / "my_net.py").write_text(reads + NETWORK)
    stage = Training(Network(f"{tmp_path}/my_net.py:build"), Dataset("digits", size=8), SGD)
    with pytest.raises(SuiteError) as refused:
        check_user_files([stage], Folders(tmp_path, tmp_path))
    assert str(refused.value).startswith("my_net.py, line 2: FileNotFoundError: ")
    assert "keep other files in the data folder" in str(refused.value)
    (tmp_path / stage.key).mkdir()
    (tmp_path / stage.key / "events.jsonl").touch()  # a worker began it
    check_user_files([stage], Folders(tmp_path, tmp_path))


def test_a_loader_that_draws_anew_each_time_is_refused(tmp_path: Path, forgetful: None) -> None:
    (tmp_path / "one.py").write_text(
        "import numpy as np\n\ndef load(split, folder):\n"
        "    return np.random.randint(0, 256, (9, 4, 4, 3), np.uint8), np.arange(9)\n"
    )
    with pytest.raises(
        SuiteError, match="one.py:load gave other test images or labels the second time; let it draw"
    ):
        user_files_check._load_twice(Dataset(f"{tmp_path}/one.py:load"), tmp_path)


def test_a_file_whose_import_never_ends_is_given_up(
    tmp_path: Path, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_files_check, "PATIENCE_SECONDS", 0.5)
    (tmp_path / "my_net.py").write_text(NETWORK)
    stage = Training(Network(f"{tmp_path}/my_net.py:build"), Dataset("digits", size=8), SGD)
    monkeypatch.setattr("sys.executable", str(tmp_path / "endless"))
    (tmp_path / "endless").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "endless").chmod(0o755)
    with pytest.raises(SuiteError, match="could not import your Python files .* keep what takes long out"):
        check_user_files([stage], Folders(tmp_path, tmp_path))
