"""What is recorded below the accuracy lies in the run directory, and changes no bit of a result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.methods import SHORT

from suite.methods.amax import Amax
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.qat_asymmetric import QatAsymmetric
from suite.ranks import Ranks
from suite.recipe import Calibration, Recipe, Sgd, Training
from suite.record.journal import read_events, read_outcome
from suite.run import checkpoint, layer_report
from suite.run.stage import Folders, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Path]:
    from suite.recipe import Dataset, Network, Precision

    sgd = Sgd(epochs=1, batch=128, lr=0.05, flip=False, pad=1, precision=Precision("O0"))
    stage = Training(Network("resnet20"), Dataset("digits", size=8), sgd)
    runs = tmp_path_factory.mktemp("runs")
    run(stage, Ranks(), Folders(runs, Path("unused")))
    return stage, runs


def test_a_run_leaves_its_artifacts_as_the_journal_says(trained: tuple[Training, Path]) -> None:
    stage, runs = trained
    recipe = Recipe(stage, Amax(4, 4))
    run(recipe, Ranks(), Folders(runs, Path("unused")))
    for one, names in ((stage, ["confusion"]), (recipe, ["layers", "confusion"])):
        recorded = [event for event in read_events(runs / one.key) if event["event"] == "artifact"]
        assert [event["file"] for event in recorded] == [f"artifacts/{name}.json" for name in names]
        for event in recorded:
            content = (runs / one.key / event["file"]).read_bytes()
            assert len(content) == event["bytes"] and hashlib.sha256(content).hexdigest() == event["sha256"]
            assert json.loads(content)["format"] == 1
        outcome = read_outcome(runs / one.key)
        rows = json.loads((runs / one.key / "artifacts" / "confusion.json").read_text())["rows"]
        assert outcome is not None and sum(sum(row.values()) for row in rows) == outcome["images"] == 599
        right = sum(row.get(str(place), 0) for place, row in enumerate(rows))
        assert 100 * right / 599 == outcome["top1"]
        assert sorted(file.name for file in (runs / one.key / "artifacts").iterdir()) == sorted(
            f"{name}.json" for name in names
        )


@pytest.mark.parametrize(
    "method",
    [Amax(3, 3), BuiltinInt8(feed=Calibration(128)), QatAsymmetric(4, 4, ranges_move=True, feed=SHORT)],
)
def test_no_bit_of_a_result_is_changed_by_looking_and_a_look_that_fails_fails_no_run(
    method: Any, trained: tuple[Training, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stage, runs = trained
    (tmp_path / stage.key).symlink_to(runs / stage.key)
    recipe, outcomes = Recipe(stage, method), []
    for folder in (runs, tmp_path):
        run(recipe, Ranks(), Folders(folder, Path("unused")))
        outcomes.append(read_outcome(folder / recipe.key))
        for name in ("float_weights", "confusion"):  # the second time nothing is looked at
            monkeypatch.setattr(layer_report, name, lambda *_: 1 / 0)
    with_it, without = outcomes
    assert with_it is not None and without is not None
    assert (runs / recipe.key / "artifacts").exists() and not (tmp_path / recipe.key / "artifacts").exists()
    same = ("correct", "top1", "top5", "loss", "images", "model_size_mb")
    assert [with_it[name] for name in same] == [without[name] for name in same]
    assert "confusion.json cannot be recorded: ZeroDivisionError: division by zero" in capsys.readouterr().out
    if "checkpoint" in with_it:
        left, right = (checkpoint.load(f / recipe.key / "checkpoint.pt", o["checkpoint"]["sha256"])["model"]
                       for f, o in zip((runs, tmp_path), outcomes, strict=True))  # fmt: skip
        assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
