"""MLflow follows the journals: whatever happens to a sync, the next one leaves one run a stage and each point once."""

from __future__ import annotations

import math
import time
from collections import Counter
from pathlib import Path

import pytest
from fakes.tracking import (
    EPOCHS,
    SGD,
    SWEEP,
    TRAININGS,
    content,
    opened,
    points,
    run_sweep,
    run_through,
    runs_in,
    score,
    the_run,
)
from mlflow.tracking import MlflowClient

from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Recipe, Training
from suite.record import lease
from suite.record.journal import read_events
from suite.track import mlflow_run, store, sync

pytestmark = pytest.mark.usefixtures("embedded")


def test_every_stage_with_a_journal_has_one_run_with_its_parameters_points_times_tags_and_status(
    tmp_path: Path,
) -> None:
    run_sweep(tmp_path)
    idle = Training(Network("resnet20"), Dataset("digits", size=8), SGD, seed=9)
    sync.sync("demo", [*SWEEP, idle], tmp_path)
    where = store.uri(tmp_path)
    found = {run.data.tags["stage_key"]: run for run in runs_in(where)}
    assert len(found) == len(runs_in(where)) == len(SWEEP) == 14
    counted = 0
    for stage in SWEEP:
        run, journal = found[stage.key], read_events(tmp_path / stage.key)
        assert run.info.run_name == stage.name
        assert run.info.status == "FINISHED"
        assert run.info.start_time == int(journal[0]["time"] * 1000)
        assert run.info.end_time == int(journal[-1]["time"] * 1000)
        assert run.data.params == {name: str(value) for name, value in stage.params.items()}
        assert {"method", "weight_bits", "act_bits", "seed", "model", "dataset"} <= run.data.params.keys()
        assert run.data.tags["role"] == ("training" if isinstance(stage, Training) else "recipe")
        assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
        assert "mlflow.parentRunId" not in run.data.tags
        written = [
            (name, event["step"], value, int(event["time"] * 1000))
            for event in journal
            if event["event"] == "metrics"
            for name, value in event["values"].items()
        ]
        assert points(where, run) == sorted(written)
        counted += len(written)
    assert counted == 2 * EPOCHS * 7 + 10 * 5 + 2 * 2 * 7
    assert found[Recipe(TRAININGS[0], Amax(4, 4)).key].info.run_name.startswith("amax w4a4 seed 0 from ")


def test_syncing_again_changes_nothing(tmp_path: Path) -> None:
    run_sweep(tmp_path)
    first = sync.sync("demo", SWEEP, tmp_path)
    before = content(store.uri(tmp_path))
    assert sync.sync("demo", SWEEP, tmp_path) == first
    assert content(store.uri(tmp_path)) == before
    assert len(before) == 14
    assert sum(len(run[-1]) for run in before.values()) == 134


def test_a_sync_between_two_events_of_one_epoch_loses_neither(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    journal = opened(tmp_path, stage)
    for epoch in (1, 2):
        journal.metrics(epoch, train_loss=1 / epoch)
        sync.sync("demo", [stage], tmp_path)
        score(journal, epoch, 90.0)
        sync.sync("demo", [stage], tmp_path)
    found = Counter((name, step) for name, step, *_ in points(store.uri(tmp_path), the_run(tmp_path, stage)))
    assert len(found) == 12
    assert set(found.values()) == {1}


def test_a_training_of_more_points_than_one_request_takes_arrives_whole(tmp_path: Path) -> None:
    journal = opened(tmp_path, TRAININGS[0])
    for epoch in range(1, 401):
        score(journal, epoch, 90.0)
    sync.sync("demo", TRAININGS[:1], tmp_path)
    assert len(points(store.uri(tmp_path), the_run(tmp_path, TRAININGS[0]))) == 400 * 5 > 2 * mlflow_run.BATCH


def test_a_failed_stage_is_failed_with_its_first_error_line_and_no_longer_once_it_is_done(
    tmp_path: Path,
) -> None:
    stage = SWEEP[1]
    journal = opened(tmp_path, stage)
    journal.write("failed", error="OutOfMemoryError: 3 GiB wanted", traceback="...")
    journal.close()
    sync.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "OutOfMemoryError: 3 GiB wanted")
    run_through(tmp_path, stage)
    sync.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert (run.info.status, run.data.tags["error"], run.data.tags["attempt"]) == ("FINISHED", "", "2")


def test_a_stage_is_running_while_its_process_holds_it_and_killed_once_that_died(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    with lease.lock(tmp_path / stage.key):
        score(opened(tmp_path, stage), 1, 60.0)
        sync.sync("demo", [stage], tmp_path)
        assert the_run(tmp_path, stage).info.status == "RUNNING"
    sync.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert run.info.status == "KILLED"
    assert run.info.end_time == int(read_events(tmp_path / stage.key)[-1]["time"] * 1000)


@pytest.mark.parametrize(
    ("again_from", "kept"), [(1, 0), (3, 2)], ids=["from the start", "from a checkpoint"]
)
def test_a_repeated_attempt_puts_its_points_in_the_place_of_the_old_ones(
    tmp_path: Path, again_from: int, kept: int
) -> None:
    stage = TRAININGS[0]
    first = opened(tmp_path, stage)
    for epoch in (1, 2, 3):
        score(first, epoch, 10.0 + epoch)
        sync.sync("demo", [stage], tmp_path)
    second = opened(tmp_path, stage)
    sync.sync("demo", [stage], tmp_path)
    for epoch in range(again_from, EPOCHS + 1):
        score(second, epoch, 20.0 + epoch)
        sync.sync("demo", [stage], tmp_path)
    found = [point for point in points(store.uri(tmp_path), the_run(tmp_path, stage)) if point[0] == "top1"]
    assert [step for _, step, _, _ in found] == [1, 2, 3, 4]
    assert [value for _, _, value, _ in found] == [(10.0 if s <= kept else 20.0) + s for s in (1, 2, 3, 4)]


def test_a_run_directory_that_was_made_anew_is_a_new_run(tmp_path: Path) -> None:
    stage = SWEEP[1]
    run_through(tmp_path, stage, top1=70)
    sync.sync("demo", [stage], tmp_path)
    for file in (tmp_path / stage.key).iterdir():
        file.unlink()
    time.sleep(0.002)
    run_through(tmp_path, stage, top1=80)
    sync.sync("demo", [stage], tmp_path)
    found = points(store.uri(tmp_path), the_run(tmp_path, stage))
    assert [value for name, _, value, _ in found if name == "top1"] == [80]


def test_a_run_that_the_client_made_twice_is_there_once_after_the_next_sync(tmp_path: Path) -> None:
    run_through(tmp_path, SWEEP[1])
    experiment = sync.sync("demo", SWEEP[:2], tmp_path)
    before = content(store.uri(tmp_path))
    began = int(read_events(tmp_path / SWEEP[1].key)[0]["time"] * 1000)
    MlflowClient(store.uri(tmp_path)).create_run(experiment, began, {"stage_key": SWEEP[1].key})
    assert len(runs_in(store.uri(tmp_path))) == 2
    sync.sync("demo", SWEEP[:2], tmp_path)
    assert content(store.uri(tmp_path)) == before


def test_a_loss_that_is_not_a_number_stays_one_and_is_said(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    journal = opened(tmp_path, stage)
    score(journal, 1, 50.0, loss=0.7)
    score(journal, 2, 10.0, loss=math.inf)
    journal.finish(stage.key, top1=10.0, top5=50.0, loss=math.nan)
    sync.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert math.isnan(run.data.metrics["loss"])
    assert run.data.metrics["top1"] == 10.0
    assert run.data.tags["diverged"] == "the evaluation gave NaN"
    before = repr(content(store.uri(tmp_path)))
    sync.sync("demo", [stage], tmp_path)
    assert repr(content(store.uri(tmp_path))) == before


def test_the_report_is_one_run_whose_files_follow_the_folder(tmp_path: Path) -> None:
    run_through(tmp_path, SWEEP[1])
    report, copied = tmp_path / "results" / "demo", tmp_path / "copied"
    report.mkdir(parents=True)
    copied.mkdir()
    client = MlflowClient(store.uri(tmp_path))

    def synced(**files: str) -> tuple[str, dict[str, str]]:
        for file in report.iterdir():
            file.unlink()
        for name, text in files.items():
            (report / f"{name}.md").write_text(text)
        sync.sync("demo", SWEEP[:2], tmp_path, report)
        (run,) = [run for run in runs_in(store.uri(tmp_path)) if run.data.tags["role"] == "report"]
        assert (run.info.run_name, run.info.status) == ("report demo", "FINISHED")
        there = [item.path for item in client.list_artifacts(run.info.run_id)]
        texts = {
            Path(name).stem: Path(client.download_artifacts(run.info.run_id, name, str(copied))).read_text()
            for name in there
        }
        return run.info.run_id, texts

    first, texts = synced(table="one", plot="two")
    assert texts == {"table": "one", "plot": "two"}
    assert synced(table="one", plot="two") == (first, texts)
    assert synced(table="new", plot="two") == (first, {"table": "new", "plot": "two"})
    assert synced(table="new")[1] == {"table": "new"}
    assert len(runs_in(store.uri(tmp_path))) == 2
