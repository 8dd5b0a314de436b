"""A checkpoint that a launch would refuse is refused when the sweep is planned."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch

from suite import networks
from suite.cli.main import main
from suite.recipe import Dataset, Network, Pretrained, plan
from suite.recipe.errors import SuiteError
from suite.sweeps import find
from suite.sweeps.stored import load_sweep

OWN = """
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Pretrained, Recipe

def sweep(file: str = "weights.pt", sha256: str = "", model: str = "resnet20"):
    start = Pretrained(Network(model), Dataset("digits"), file, sha256)
    return [start, Recipe(start, Amax(8)), Recipe(start, Amax(4))]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a sweep of one's own and a checkpoint."""
    (tmp_path / "own.py").write_text(OWN)
    torch.save(networks.build(Network()).state_dict(), tmp_path / "weights.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["plan", "own.py", *words]) == 2
    assert not Path("runs").exists(), "a refused plan leaves nothing"
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


def test_a_checksum_that_is_not_named_is_that_of_the_file_in_whatever_folder_a_worker_is(place: Path) -> None:
    assert main(["plan", "own.py"]) == 0
    digest = hashlib.sha256((place / "weights.pt").read_bytes()).hexdigest()
    start, *recipes = load_sweep(place / "runs", "own")
    assert isinstance(start, Pretrained)
    assert (start.sha256, start.file) == (digest, str(place / "weights.pt"))
    assert [recipe.needs for recipe in recipes] == [(start,), (start,)]
    named = plan(find("own.py").stages(["--sha256", digest])[0])
    assert [stage.key for stage in named] == [stage.key for stage in (start, *recipes)]


def test_a_file_of_another_architecture_is_refused_when_planned(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "--model", "resnet56")
    assert "weights.pt is not a resnet56 with shortcut B and 10 classes" in said
    (place / "weights.pt").write_bytes(b"no checkpoint")
    assert "is not a checkpoint that torch.load reads" in refused(capsys)


def test_a_file_that_is_missing_or_has_another_checksum_is_refused_when_planned(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"no checkpoint {place}/gone.pt; put it there, or name another file" in refused(
        capsys, "--file", "gone.pt"
    )
    assert "no checkpoint" in refused(capsys, "--file", "gone.pt", "--sha256", "0" * 64)
    assert "not 0000000000000000 as the sweep names" in refused(capsys, "--sha256", "0" * 64)


@pytest.mark.parametrize("sha256", ["12fca82f", "F" * 64, "0" * 63, "0" * 65, " " + "0" * 64])
def test_a_checksum_that_is_none_is_refused(sha256: str) -> None:
    with pytest.raises(SuiteError, match=re.escape(f"must be 64 hex digits in lower case, got {sha256!r}")):
        Pretrained(Network(), Dataset("digits"), "weights.pt", sha256)
