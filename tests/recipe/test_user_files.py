"""A user's file is part of what a stage is: in its key, kept with the runs, found by workers that see nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fakes import ROOT
from fakes.forking import completed
from fakes.user_files import METHOD, NETWORK, forget, write
from fakes.waiting import limit

from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training, plan, user_files
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.sweeps import stored

SGD = Sgd(1, 128, 0.05, pad=1, flip=False, precision=Precision("O0"))


def test_a_files_sha256_is_in_the_key_and_its_folder_is_not(tmp_path: Path, forgetful: None) -> None:
    keys = []
    for folder, text in (("a", NETWORK), ("b", NETWORK), ("c", NETWORK + "# other\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my_net.py").write_text(text)
        network = Network(f"{tmp_path}/{folder}/my_net.py:build")
        assert network.name == "my_net.py:build"
        assert network.sha256 == hashlib.sha256(text.encode()).hexdigest()
        training = Training(network, Dataset("digits"), SGD)
        assert network.sha256[:8] in training.name and training.params["network_sha256"] == network.sha256
        keys.append(training.key)
    assert keys[0] == keys[1] != keys[2]


def sha256_of(file: Path) -> str:
    return user_files.resolved(f"{file}:build").sha256


def test_what_a_file_imports_beside_it_is_part_of_its_sha256_and_its_function_sweep_is_not(
    tmp_path: Path, forgetful: None
) -> None:
    own = write(tmp_path)
    digests = [sha256_of(own)]
    text = own.read_text()
    own.write_text(text.replace("seeds: int = 1", "seeds: int = 5"))
    assert sha256_of(own) == digests[0]
    for name, content in (
        ("own.py", text + "WIDTH = 4\n"),
        ("my_methods.py", METHOD + "# changed\n"),
        ("my_parts.py", "SCALE = 2.0\n"),  # which my_methods imports
    ):
        (tmp_path / name).write_text(content)
        digests.append(sha256_of(own))
    assert len(set(digests)) == 4
    (tmp_path / "not_imported.py").write_text("")
    assert sha256_of(own) == digests[-1]


def test_a_package_beside_the_file_belongs_to_it_whole(tmp_path: Path, forgetful: None) -> None:
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / ".#x.py").symlink_to("of-an-editor")
    for name in ("parts/__init__.py", "parts/deep/__init__.py", "parts/deep/x.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "one.py").write_text("def build():\n    from parts.deep import x\n")
    before = sha256_of(tmp_path / "one.py")
    (tmp_path / "parts/deep/x.py").write_text("A = 1\n")
    assert sha256_of(tmp_path / "one.py") != before


def test_another_process_that_sees_the_runs_folder_alone_makes_the_same_stages(
    tmp_path: Path, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite import networks
    from suite.sweeps import find

    (tmp_path / "mine").mkdir()
    runs = tmp_path / "runs"
    stages = plan(find(str(write(tmp_path / "mine"))).stages([])[0])
    stored.save_sweep(runs, "own", {}, stages)
    shutil.rmtree(tmp_path / "mine")
    forget(monkeypatch)
    read = stored.load_sweep(runs, "own", checked=True)
    assert [stage.key for stage in read] == [stage.key for stage in stages]
    training, recipe = read
    assert isinstance(recipe, Recipe) and isinstance(training, Training)
    assert recipe.method.name == "half_amax" and recipe.method.scale == 0.5  # type: ignore[attr-defined]
    assert recipe.params["method_file"] == "my_methods.py:HalfAmax"
    model = networks.build(training.network)
    assert model.linear.out_features == 10  # type: ignore[union-attr]
    kept = sorted(file.name for file in (runs / user_files.KEPT).rglob("*.py"))
    assert kept == ["my_methods.py", "my_net.py", "my_parts.py"]


def test_a_kept_copy_that_was_changed_is_refused(
    tmp_path: Path, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite.sweeps import find

    (tmp_path / "mine").mkdir()
    runs = tmp_path / "runs"
    stored.save_sweep(runs, "own", {}, find(str(write(tmp_path / "mine"))).stages([])[0])
    [copy] = (runs / user_files.KEPT).rglob("my_methods.py")
    copy.write_text(copy.read_text() + "# changed\n")
    forget(monkeypatch)
    with pytest.raises(
        SuiteError, match="my_methods.py has changed since it was planned; plan the sweep again"
    ):
        stored.load_sweep(runs, "own", checked=True)
    shutil.rmtree(runs / user_files.KEPT)
    forget(monkeypatch)
    with pytest.raises(
        SuiteError, match="no copy of my_methods.py with SHA-256 .* is kept; plan the sweep again"
    ):
        stored.load_sweep(runs, "own", checked=True)


PROOF = """
from pathlib import Path
Path({proof!r}).touch()
"""
TRAINS = """
from dataclasses import dataclass
from suite.methods.qat_symmetric import QatSymmetric

@dataclass(frozen=True)
class Mine(QatSymmetric):
    pass
"""
OWN = """
from my_methods import Mine
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep():
    sgd = Sgd(3, 128, 0.05, pad=1, flip=False, precision=Precision("O0"))
    return [Recipe(Training(Network("resnet20"), Dataset("digits", size=8), sgd), Mine(4, 4, feed=sgd))]
"""


def test_who_reads_a_runs_folder_runs_no_code_that_is_kept_there(
    tmp_path: Path, forgetful: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a record that names the file in the place of something else."""
    from suite.cli.main import main
    from suite.sweeps import find

    mine, runs, proof = tmp_path / "mine", tmp_path / "runs", tmp_path / "proof"
    mine.mkdir()
    (mine / "my_methods.py").write_text(TRAINS + PROOF.format(proof=str(proof)))
    (mine / "own.py").write_text(OWN)
    stages = find(str(mine / "own.py")).stages([])[0]
    stored.save_sweep(runs, "own", {}, plan(stages))
    shutil.rmtree(mine)
    forget(monkeypatch)
    proof.unlink()
    training, recipe = stored.load_sweep(runs, "own")
    real = plan(stages)[1]
    assert (recipe.key, recipe.name, recipe.params) == (real.key, real.name, real.params)
    assert (recipe.trains_by, recipe.world_size, recipe.needs) == (real.trains_by, 1, (training,))
    assert isinstance(recipe, Recipe) and (recipe.method.weight_bits, recipe.method.act_bits) == (4, 4)
    assert main(["status", "own", "--runs", str(runs)]) == 0 and "mine w4a4" in capsys.readouterr().out
    for words in (["cancel", "own"], ["logs", recipe.key], ["logs", "own", "--errors"]):
        main([*words, "--runs", str(runs)])
    record = json.loads((runs / "sweeps/own.json").read_text())
    row, evil = record["stages"][1], record["stages"][1]["stage"]["method"]
    for place in ({"stage": evil}, {"stage": {**row["stage"], "start": evil}}, {"trains": evil}):
        (runs / "sweeps/own.json").write_text(json.dumps({**record, "stages": [{**row, **place}]}))
        with pytest.raises(SuiteError, match="is not that of its stage"):
            stored.load_sweep(runs, "own")
    assert not proof.exists()
    (runs / "sweeps/own.json").write_text(json.dumps(record))
    stored.load_sweep(runs, "own", checked=True)
    assert proof.exists(), "who runs a stage imports its method"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.py:build", r"no file nowhere.py for 'nowhere.py:build'; looked in"),
        ("one.py:", r"one.py:' names no object; write my_file.py:name"),
        ("one.py:a b", "names no object"),
    ],
)
def test_a_name_of_no_file_or_of_no_object_is_refused_when_the_value_is_made(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "one.py").write_text("")
    with pytest.raises(SuiteError, match=words):
        Network(f"{tmp_path}/{name}" if name.startswith("one") else name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def other(): ...\n", "one.py has no 'build'; it has other"),
        ("import nothing_of_that_name\n", "one.py, line 1: ModuleNotFoundError: No module named 'nothing_of"),
        ("x = 1\n\ndef build(:\n", "one.py, line 3: SyntaxError"),
        ("a = 1\nb = a / 0\n", "one.py, line 2: ZeroDivisionError"),
        ("build = 7\n", "one.py:build is a int; name a function or class that makes a network"),
        (
            "def build():\n    return 7\n",
            "one.py:build made a int, not a torch.nn.Module; return the network",
        ),
        ("def build():\n    x = 1\n    return x.y\n", "one.py, line 3: AttributeError: 'int' object has no"),
        (
            "def build(width):\n    return width\n",
            r"one.py:build needs width, and gets the number of classes alone",
        ),
    ],
)
def test_what_is_wrong_in_a_users_file_is_said_with_its_line(
    tmp_path: Path, forgetful: None, text: str, words: str
) -> None:
    from suite import networks

    (tmp_path / "one.py").write_text(text)
    with pytest.raises(SuiteError, match=words):
        networks.build(Network(f"{tmp_path}/one.py:build"))


def test_two_versions_of_what_two_files_import_are_not_mixed_in_one_process(
    tmp_path: Path, forgetful: None
) -> None:
    for folder, scale in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my_parts.py").write_text(f"SCALE = {scale}\n")
        (tmp_path / folder / "one.py").write_text(
            "from my_parts import SCALE\n\ndef build():\n    return SCALE\n"
        )
    references = [user_files.resolved(f"{tmp_path}/{folder}/one.py:build") for folder in "ab"]
    assert user_files.load(references[0])() == 1
    with pytest.raises(
        SuiteError, match=r"b/one.py imports my_parts.py, and this process has imported .*a/my_parts"
    ):
        user_files.load(references[1])


def test_a_users_value_comes_back_from_json_and_one_that_nobody_can_find_is_refused(tmp_path: Path) -> None:
    class Local(Amax):
        pass

    training = Training(Network(), Dataset("digits"), SGD)
    with pytest.raises(
        SuiteError, match="uses .*Local, which workers cannot find; put it into a .py file of your"
    ):
        stored.save_sweep(tmp_path, "own", {}, [Recipe(training, Local())])
    data: Any = to_json(Recipe(training, Amax()))
    data["method"]["type"] = "/etc/x.py:y"
    with pytest.raises(SuiteError, match="no copy of /etc/x.py with SHA-256"):
        stored.from_json(json.loads(json.dumps(data)))


def suite(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return completed([*words, "--runs", str(folder / "runs")], folder, environment, limit(240))


def test_a_sweep_of_a_users_method_and_network_runs_and_an_edit_makes_other_stages(
    tmp_path: Path, database: bytes
) -> None:
    write(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_bytes(database)
    done = suite(tmp_path, "launch", "own.py", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 stages: 2 done" in done.stdout.replace("\n", " ")
    folders = [file.parent for file in (tmp_path / "runs").glob("*/outcome.json")]
    copies = {file.name for folder in folders for file in (folder / user_files.KEPT).rglob("*.py")}
    assert copies == {"my_methods.py", "my_net.py", "my_parts.py"}
    (tmp_path / "my_methods.py").write_text(METHOD + "# changed\n")
    shown = suite(tmp_path, "plan", "own.py", "--seeds", "2").stdout
    assert [line.count("done") for line in shown.splitlines() if "train my_net.py:build" in line] == [1, 0]
