"""Widths and sensitivity as runs leave them: artifacts, metrics, and what is measured after a run is done."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from suite.cli.main import main
from suite.formats.rebuild import rebuilt
from suite.methods.amax import Amax
from suite.methods.linear import Linear
from suite.methods.mixed import Mixed
from suite.methods.mse import Mse
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Stage, Training, plan
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import Journal, read_events, read_outcome, run_seconds
from suite.run import measure
from suite.run.attempt import InterruptedRunError
from suite.run.stage import run
from suite.sensitivity import costs
from suite.steps import MeasureSensitivity
from suite.stop import Stop
from suite.sweeps.stored import save_sweep

NETWORK = """
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.linear = nn.Linear(4, 10)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        return self.linear((self.left(x) + self.right(x)).relu().mean((2, 3)))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Stage], Folders]:
    """A training of a small network on 8x8 digits, a recipe of it with widths by layer, and one that has none."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "small_net.py").write_text(NETWORK)
    sgd = Sgd(1, 256, 0.1, pad=1, flip=False, precision=Precision("O0"))
    start = Training(Network(f"{folder / 'small_net.py'}:Small"), Dataset("digits", size=8), sgd)
    calibration = Calibration(64, 64)
    mixed = Mixed(Mse(4, 4, feed=calibration), size_bits=3, score_images=32)
    stages = [start, Recipe(start, mixed), Recipe(start, Linear(8)), Recipe(start, Amax(4, 4))]
    folders = Folders(folder / "runs", Path("unused"))
    save_sweep(folders.runs, "measured", {}, plan(stages))
    for stage in stages[:3]:
        run(stage, Ranks(), folders)
    return stages, folders


def test_a_run_records_its_widths_as_an_artifact_and_as_metrics(
    finished: tuple[list[Stage], Folders],
) -> None:
    (_, recipe, *_), folders = finished
    folder = folders.runs / recipe.key
    kept = json.loads((folder / "artifacts" / "widths.json").read_text())
    assert kept["budget"] == {"size_bits": 3.0, "bops_per_mac": 16.0} and kept["mean_weight_bits"] <= 3
    assert "size bits 3.0 bops per mac 16.0" in recipe.name
    values = {}
    for event in read_events(folder):
        if event["event"] == "metrics" and event["step"] == 0:
            values |= event["values"]
    assert values["mean_weight_bits"] == kept["mean_weight_bits"] and values["bops"] == kept["bops"]
    assert values["size_mb"] == pytest.approx(values["model_size_mb"])
    assert any(e["event"] == "artifact" and e["file"] == "artifacts/widths.json" for e in read_events(folder))


@pytest.mark.parametrize("which", [0, 1])
def test_the_command_measures_a_finished_stage_and_leaves_its_result(
    which: int, finished: tuple[list[Stage], Folders], capsys: pytest.CaptureFixture[str]
) -> None:
    stages, folders = finished
    key = stages[which].key
    before, seconds = read_outcome(folders.runs / key), run_seconds(read_events(folders.runs / key))
    words = ["sensitivity", key[:10], "--images", "16", "--widths", "2", "4", "--runs", str(folders.runs)]
    assert main(words) == 0
    record = json.loads((folders.runs / key / "artifacts" / "sensitivity.json").read_text())
    assert record["images"] == 16 and len(record["costs"]) == 4 * 2 * 2
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("conv ", "left ", "right ", "linear ")) for line in lines) == 16
    assert any("rho with the loss alone" in line for line in lines)
    events = read_events(folders.runs / key)
    last = events[-1]
    assert last["event"] == "artifact" and last["file"] == "artifacts/sensitivity.json"
    assert read_outcome(folders.runs / key) == before
    assert last["attempt"] == 1 and run_seconds(events) == seconds, "to measure a run is no attempt at it"
    assert not list((folders.runs / key).glob("resum*"))


def test_where_there_is_no_rank_correlation_no_table_of_it_begins(
    finished: tuple[list[Stage], Folders],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the losses there is nothing to compare with, and fewer than four layers have no order to speak of."""
    (start, *_), folders = finished
    words = ["sensitivity", start.key, "--images", "16", "--widths", "2", "--runs", str(folders.runs)]
    for more, too_few in ((["--scores-only"], False), ([], True)):
        monkeypatch.setattr("suite.sensitivity.correlation.LEAST", 5 if too_few else 4)
        assert main([*words, *more]) == 0
        shown = capsys.readouterr().out
        assert "rho" not in shown
        assert ("No rank correlation: that needs 5 layers whose costs differ." in shown) == too_few


def test_a_measurement_that_was_stopped_goes_on_where_it_was(
    finished: tuple[list[Stage], Folders], monkeypatch: pytest.MonkeyPatch
) -> None:
    (start, *_), folders = finished
    how = MeasureSensitivity((2, 4), images=Calibration(16, 16), probes=1)
    stop, counted = Stop(), list[object]()

    def tick(part: float, doing: str) -> None:
        if "left weight 2" in doing:
            stop.asked_by = "a test"

    with pytest.raises(InterruptedRunError):
        measure.sensitivity(start, folders, how, tick, stop)
    part = folders.runs / start.key / measure.PART
    before = json.loads(part.read_text())["state"]["truth"]
    assert "left weight 2" in before and len(before) < 16
    real = costs.evaluated
    monkeypatch.setattr(costs, "evaluated", lambda *given: counted.append(given) or real(*given))
    record = measure.sensitivity(start, folders, how, lambda part, doing: None)
    assert len(record["costs"]) == 16 and not part.exists()
    assert len(counted) == 2 * (16 - len(before)) + 3, "those of before are not evaluated again"
    part.write_text("{")
    assert measure._part(part, "of a torn file") is None


def test_what_is_not_done_or_has_no_widths_by_layer_is_refused(
    finished: tuple[list[Stage], Folders], capsys: pytest.CaptureFixture[str]
) -> None:
    (_, _, linear, amax), folders = finished
    for stage, words in ((amax, "is not done yet; run it first"), (linear, "are not for linear, which")):
        assert main(["sensitivity", stage.key, "--runs", str(folders.runs)]) == 2
        assert words in capsys.readouterr().err


def test_what_read_other_images_is_neither_measured_nor_made_again(
    finished: tuple[list[Stage], Folders], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, recipe, *_), folders = finished
    shutil.copytree(folders.runs, tmp_path / "runs")
    journal = Journal(tmp_path / "runs" / recipe.key, afterwards=True)
    journal.write("data", split="train", images=1198, sha256="0" * 64)
    journal.close()
    assert main(["sensitivity", recipe.key, "--runs", str(tmp_path / "runs")]) == 2
    words = "the train images of digits in {} are not those that mixed"
    assert words.format("data") in capsys.readouterr().err
    with pytest.raises(SuiteError, match=words.format("other")):
        rebuilt(recipe, Folders(tmp_path / "runs", Path("other")))


def test_a_budget_that_nothing_meets_fails_the_run_with_the_least_possible(
    finished: tuple[list[Stage], Folders],
) -> None:
    (_, recipe, *_), folders = finished
    assert isinstance(recipe, Recipe) and isinstance(recipe.method, Mixed)
    small = replace(recipe, method=replace(recipe.method, size_bits=1.0))
    with pytest.raises(Exception, match="the least possible is 2"):
        run(small, Ranks(), folders)
