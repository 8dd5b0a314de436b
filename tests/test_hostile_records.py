"""A record that somebody else wrote stops neither a sync, a report nor a status, and has no other folder read."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes import journals
from fakes.embedded import embedded
from fakes.journals import Embedded, difference, write_run
from mlflow.tracking import MlflowClient

from analysis.errors import AnalysisError
from analysis.read import mlflow, run_folders
from analysis.read.plan import REQUIRED
from suite.cli.main import main
from suite.launch import local_jobs
from suite.record import synced
from suite.record.files import write_json
from suite.record.journal import read_progress
from suite.sweeps.stored import save_sweep
from suite.track import store, sync

__all__ = ["embedded"]
STAGES = journals.stages(2)
DEEP = "[" * 100_000


@pytest.mark.usefixtures("embedded")
def test_a_stage_json_or_a_plan_that_is_none_costs_a_sync_nothing_else(tmp_path: Path) -> None:
    save_sweep(tmp_path, "demo", {}, STAGES)
    for stage in STAGES:
        write_run(tmp_path, stage)
    (tmp_path / STAGES[0].key / "stage.json").write_text(DEEP)
    content = json.loads((tmp_path / "sweeps" / "demo.json").read_text())
    for row in content["stages"]:
        del row["params"]
    write_json(content, tmp_path / "sweeps" / "demo.json")
    lines = dict[str, str]()
    sync.sync("demo", STAGES, tmp_path, refused=lines)
    assert lines["plan"].startswith("MLflow has not the plan of demo: ") and "\n" not in lines["plan"]
    assert difference(Embedded(tmp_path), "demo", tmp_path, list(STAGES))[1:] == (0, 0)


ROWS: dict[str, dict[str, Any]] = {
    "a key that is a number": {"key": 7},
    "a key that leaves the folder": {"key": "../secret"},
    "an absolute key": {"key": "/SECRET"},
    "a need that is a number": {"needs": [7]},
    "needs that are none": {"needs": 7},
    "a name that is none": {"name": 7},
    "params that are none": {"params": [1]},
    "a seed that is text": {"seed": "x"},
    "a seed that is no seed": {"seed": 10**30},
    "a width that is a list": {"weight_bits": [8]},
    "a method that is none": {"method": {"a": 1}},
}


@pytest.mark.parametrize("what", ROWS)
def test_a_row_that_is_none_is_an_error_in_a_line_and_has_no_other_folder_read(
    tmp_path: Path, what: str
) -> None:
    runs, secret = tmp_path / "runs", tmp_path / "secret"
    secret.mkdir()
    (secret / "outcome.json").write_text('{"key": "THE SECRET", "format": 1}')
    save_sweep(runs, "demo", {}, STAGES)
    assert len(run_folders.load(runs, "demo")[0]) == 2
    content = json.loads((runs / "sweeps" / "demo.json").read_text())
    row, change = content["stages"][0], ROWS[what]
    if "SECRET" in str(change):
        change = {"key": str(secret)}
    for name, value in change.items():
        (row["params"] if name in row["params"] else row)[name] = value
    write_json(content, runs / "sweeps" / "demo.json")
    with pytest.raises(AnalysisError, match="plan the sweep again") as refused:
        run_folders.load(runs, "demo")
    assert "THE SECRET" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_runs_csv_with_a_number_that_none_is_is_an_error_in_a_line(tmp_path: Path) -> None:
    cells = dict.fromkeys(("key", "state", *REQUIRED, *run_folders.DERIVED), "x")
    cells |= {"top1": "1.0", "seed": "9" * 30, "weight_bits": "8", "act_bits": "8", "drop": "1.0"}
    (tmp_path / "runs.csv").write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    with pytest.raises(AnalysisError, match="runs.csv is no table of runs: "):
        run_folders.from_csv(tmp_path / "runs.csv")


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(
    "text", [DEEP, "[]", "{}", '{"run_seconds": "x", "data": {}, "stage": 1, "outcome": null}']
)
def test_a_tag_in_mlflow_that_no_sync_wrote_is_an_error_in_a_line(tmp_path: Path, text: str) -> None:
    save_sweep(tmp_path, "demo", {}, STAGES)
    write_run(tmp_path, STAGES[0])
    sync.sync("demo", STAGES, tmp_path)
    assert len(mlflow.load(tmp_path, "demo")[0]) == 2
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("update tags set value = ? where key = 'mlflow.suite.record'", (text,))
    with pytest.raises(AnalysisError, match="has a tag mlflow.suite.record that no sync wrote"):
        mlflow.load(tmp_path, "demo")
    assert MlflowClient(store.uri(tmp_path)).get_experiment_by_name("demo")


NOTES = [
    DEEP,
    "[1]",
    '{"pages": [1]}',
    '{"positions": 7}',
    '{"positions": {"KEY": "x"}}',
    '{"pages": {"a": 1}}',
]


@pytest.mark.parametrize("text", NOTES)
def test_a_note_of_a_sync_that_is_none_does_not_stop_a_status(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sweep(tmp_path, "demo", {}, STAGES)
    write_run(tmp_path, STAGES[0])
    (tmp_path / "sweeps" / "demo.mlflow").write_text(text.replace("KEY", STAGES[0].key))
    assert main(["status", "demo", "--runs", str(tmp_path)]) == 0
    assert "2 stages" in capsys.readouterr().out
    synced.note_syncer(tmp_path, "demo", "me")
    assert synced.last_syncer(tmp_path, "demo") == "me" and synced.mlflow_pages(tmp_path, "demo") == {}


@pytest.mark.parametrize(
    "text", [DEEP, "7", '{"jobs": 7}', '{"on": [], "jobs": [7, ["../../home", 7, "/x"]]}']
)
def test_a_launch_that_is_none_has_no_jobs(tmp_path: Path, text: str) -> None:
    launch = local_jobs.record(tmp_path, "here", [[STAGES[0].key]])
    assert launch.open_jobs == [[STAGES[0].key]]
    (launch.folder / "launch.json").write_text(text)
    assert launch.jobs == launch.open_jobs == [] and isinstance(launch.on, str)


@pytest.mark.parametrize(
    "text", [DEEP, "[]", '{"doing": 1, "part": 0}', '{"doing": "x", "part": NaN}', '{"part": 1}']
)
def test_a_progress_that_is_none_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "progress.json").write_text(text)
    assert read_progress(tmp_path) is None
    (tmp_path / "progress.json").write_text(
        '{"doing": "\x9bx", "part": 7, "loss": "y", "top1": 3.0, "x": 1e999}'
    )
    assert read_progress(tmp_path) == {"doing": "?x", "part": 1.0, "top1": 3.0}
