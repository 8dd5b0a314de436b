"""MLflow and a runs.csv are as good as the journals: the results made from them are the same bytes."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from analysis.__main__ import main
from analysis.errors import AnalysisError
from analysis.read import mlflow
from analysis.read.run_folders import DERIVED, REQUIRED, load
from analysis.report import results
from suite.methods.amax import Amax
from suite.methods.k_sigma import KSigma
from suite.methods.linear import Linear
from suite.methods.qat_symmetric import QatSymmetric
from suite.ranks import Ranks
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Stage, Training, plan
from suite.record import lease
from suite.record.journal import Journal
from suite.run.stage import Folders, run
from suite.stop import Stop
from suite.sweeps.stored import save_sweep
from suite.track import store, sync, sync_run
from suite.track.tags import RECORD, SYNCED

pytestmark = pytest.mark.usefixtures("undrawn")
SGD = Sgd(epochs=1, batch=128, lr=0.05, flip=False, pad=1, milestones=(1,), precision=Precision("O0"))
TRAININGS = [Training(Network("resnet20"), Dataset("digits", size=8), SGD, seed=seed) for seed in (0, 1)]
QAT = QatSymmetric(feed=SGD)
METHODS = [Linear(4), KSigma(9), KSigma(5), KSigma(8), Amax(3, 3), QAT]
DONE, FAILED, RUNNING, STOPPED = 2, 2, 3, 4
"""How many of METHODS are run, and where the others end."""
SAME = ("runs.csv", "table.csv", "table.md", "table.tex", "summary.md", "published.csv")


def stages() -> tuple[Stage, ...]:
    return plan([Recipe(training, method) for method in METHODS for training in TRAININGS])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two seeds: trainings and two methods really run, of which one gives NaN; one that failed, one that runs
    (its lock is to be held), one that was killed, the rest not begun."""
    runs = tmp_path_factory.mktemp("swept") / "runs"
    save_sweep(runs, "mixed", {}, stages(), "Is it the same?")
    for stage in TRAININGS:
        run(stage, Ranks(), Folders(runs, Path("unused")), Stop())
    for method in METHODS[:DONE]:
        for training in TRAININGS:
            run(Recipe(training, method), Ranks(), Folders(runs, Path("unused")), Stop())
    for index in (FAILED, RUNNING, STOPPED):
        recipe = Recipe(TRAININGS[0], METHODS[index])
        (runs / recipe.key).mkdir()
        journal = Journal(runs / recipe.key)
        journal.write("started", host="n1", pid=1, device="cpu", commit="c0ffee")
        if index == FAILED:
            journal.write("failed", error="out of memory\nand more", cause="memory")
        journal.close()
    return runs


@pytest.fixture
def synced(swept: Path, tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runs, synced to a database that lies alone in its folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tmp_path / "runs"
    shutil.copytree(swept, runs)
    (runs / "mlflow.db").write_bytes(database)
    with lease.lock(runs / Recipe(TRAININGS[0], METHODS[RUNNING]).key):
        sync.sync("mixed", stages(), runs)
        yield runs


def written(folder: Path, runs: Path, source: str = "journals") -> dict[str, bytes]:
    assert main(["mixed", "--runs", str(runs), "--out", str(folder), "--from", source]) == 0
    return {name: (folder / "mixed" / name).read_bytes() for name in SAME}


def test_what_mlflow_has_gives_the_same_results_byte_by_byte(
    synced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_journals = written(tmp_path / "one", synced)
    far = tmp_path / "far"
    far.mkdir()
    with (
        closing(sqlite3.connect(synced / "mlflow.db")) as there,
        closing(sqlite3.connect(far / "mlflow.db")) as copy,
    ):
        there.backup(copy)
    monkeypatch.setattr(mlflow, "PAGE", 3)  # runs come in several pages
    assert written(tmp_path / "two", far, "mlflow") == from_journals
    table = load(synced, "mixed")[0]
    assert table["state"].value_counts().to_dict() == {
        "done": 6, "pending": 5, "failed": 1, "running": 1, "stopped": 1
    }  # fmt: skip
    assert table[table["state"] == "done"]["loss"].isna().sum() == 2 and table["milestones"][0] == "1"
    text = from_journals["table.md"].decode()
    assert "Not done: 1 failed, 1 running, 1 stopped, 5 pending of 14 stages." in text
    failed = Recipe(TRAININGS[0], METHODS[FAILED])
    assert f"Failed: {failed.name}: out of memory" in text and "stopped (0 of 2)" in text


def test_the_curves_come_from_mlflow_too(synced: Path) -> None:
    _, copied = load(synced, "mixed")
    _, kept = mlflow.load(synced, "mixed")
    assert list(copied) == list(kept) and len(copied) == 2
    for key, curve in copied.items():
        assert curve.epochs.tolist() == kept[key].epochs.tolist() == [1]
        assert {name: values.tolist() for name, values in curve.values.items()} == {
            name: values.tolist() for name, values in kept[key].values.items()
        }


def test_a_plan_that_grew_or_was_cut_off_is_mended_by_the_next_sync(synced: Path) -> None:
    client = MlflowClient(store.uri(synced))
    experiment = client.get_experiment_by_name("mixed").experiment_id
    client.set_experiment_tag(experiment, f"{mlflow.PLAN}.0", "1 cut-off eJx")
    with pytest.raises(
        AnalysisError, match="experiment 'mixed' in MLflow has no whole plan; run `suite sync"
    ):
        mlflow.load(synced, "mixed")
    many = [Recipe(replace(TRAININGS[0], seed=seed), Amax(8, 8)) for seed in range(2, 500)]
    save_sweep(synced, "mixed", {}, plan([*stages(), *many]))
    sync.sync("mixed", stages(), synced)
    assert len(client.get_experiment(experiment).tags[f"{mlflow.PLAN}.1"]) > 1000
    assert len(mlflow.load(synced, "mixed")[0]) == 14 + 2 * 498
    save_sweep(synced, "mixed", {}, stages()[:3])
    sync.sync("mixed", stages(), synced)
    assert len(mlflow.load(synced, "mixed")[0]) == 3


def test_a_run_of_an_older_sync_is_named_and_the_next_sync_completes_it(synced: Path) -> None:
    client = MlflowClient(store.uri(synced))
    experiment = client.get_experiment_by_name("mixed").experiment_id
    (found,) = client.search_runs([experiment], "attributes.run_name LIKE 'k_sigma w9 seed 0 from %'")
    client.delete_tag(found.info.run_id, RECORD)
    old = found.data.tags[SYNCED].replace(f', "record": {sync_run.VERSION}', "")
    client.set_tag(found.info.run_id, SYNCED, old)
    with pytest.raises(
        AnalysisError,
        match="run 'k_sigma w9 seed 0 from .*' in MLflow has no tag mlflow.suite.record; run `suite sync mixed`",
    ):
        mlflow.load(synced, "mixed")
    sync.sync("mixed", stages(), synced)
    assert len(mlflow.load(synced, "mixed")[0]) == 14


def test_mlflow_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: bytes
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(
        AnalysisError, match="there is no MLflow at .*mlflow.db; run `suite sync mixed` first"
    ):
        mlflow.load(tmp_path, "mixed")
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "mlflow.db").write_bytes(database)
    with pytest.raises(AnalysisError, match="has no experiment 'mixed'; run `suite sync mixed`"):
        mlflow.load(tmp_path, "mixed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(AnalysisError, match="MLflow at http://127.0.0.1:9 failed: .*; check that it runs"):
        mlflow.load(tmp_path, "mixed")


def test_a_table_of_runs_gives_the_same_results_byte_by_byte(swept: Path, tmp_path: Path) -> None:
    from_journals = written(tmp_path / "one", swept)
    file = tmp_path / "one" / "mixed" / "runs.csv"
    assert written(tmp_path / "two", tmp_path, str(file)) == from_journals


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "key,state\n", "NO"])
def test_another_file_is_no_table_of_runs(tmp_path: Path, text: str) -> None:
    columns = ("key", "state", "top1", *REQUIRED, *DERIVED)
    words = {"NO": f"{','.join(columns)}\n{','.join(['x'] * len(columns))}\n"}
    (tmp_path / "runs.csv").write_text(words.get(text, text))
    with pytest.raises(
        AnalysisError, match=r"runs\.csv (is no table of runs: |has no ).*; give the runs.csv of a report"
    ):
        results.load(tmp_path, "mixed", str(tmp_path / "runs.csv"))


def test_another_source_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        AnalysisError, match=r"--from 'mlfow' is no file; use journals, mlflow or a runs\.csv"
    ):
        results.load(tmp_path, "mixed", "mlfow")
