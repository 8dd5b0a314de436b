"""What MLflow has beside parameters and points: data sets, causes, checkpoints, the sweep's question, the best."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from fakes.tracking import RECIPES, SWEEP, TRAININGS, opened, run_through, score, synced, the_run
from mlflow.tracking import MlflowClient

from suite.methods.amax import Amax
from suite.methods.percentile import Percentile
from suite.recipe import Dataset, Network, Pretrained, Recipe
from suite.record import files
from suite.record.journal import Journal
from suite.run import checkpoint
from suite.sweeps.stored import save_sweep
from suite.track import run_contents, sync, sync_run
from suite.track.tags import RECORD, SYNCED

PRETRAINED = Pretrained(Network(), Dataset("cifar10"), "weights.pt", "0" * 64)


pytestmark = pytest.mark.usefixtures("embedded")


def test_a_run_names_each_split_of_its_data_once_by_digest_however_often_it_was_read(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    for _ in range(2):
        journal = opened(tmp_path, stage)
        journal.write("data", split="train", images=1198, sha256="ab" * 32)
        score(journal, 1, 50.0)
        synced(tmp_path, stage)
        journal.write("data", split="test", images=599, sha256="cd" * 32)
        synced(tmp_path, stage)
        journal.close()
    found = {
        used.tags[0].value: (used.dataset.name, used.dataset.digest, json.loads(used.dataset.profile))
        for used in the_run(tmp_path, stage).inputs.dataset_inputs
    }
    assert found == {
        "train": ("digits", "ab" * 8, {"images": "1198"}),
        "test": ("digits", "cd" * 8, {"images": "599"}),
    }
    assert len(the_run(tmp_path, stage).inputs.dataset_inputs) == 2


def test_where_a_run_ran_are_tags_and_no_parameters_and_its_checkpoint_has_path_size_and_sha256(
    tmp_path: Path,
) -> None:
    stage = TRAININGS[0]
    journal = opened(tmp_path, stage)
    journal.close()
    journal = Journal(tmp_path / stage.key)
    journal.write("started", host="node7", pid=1, device="cpu", commit="c0ffee", job="4711.1")
    score(journal, 1, 50.0)
    saved = checkpoint.save({"model": {}}, tmp_path / stage.key / "checkpoint.pt")
    journal.finish(stage.key, top1=50.0, loss=0.5, checkpoint=saved)
    journal.close()
    synced(tmp_path, stage)
    run = the_run(tmp_path, stage)
    tags = {name: run.data.tags[name] for name in ("host", "slurm_job", "attempt")}
    assert tags == {"host": "node7", "slurm_job": "4711.1", "attempt": "2"}
    assert not {"host", "slurm_job", "job", "attempt", "pid", "device"} & run.data.params.keys()
    file = Path(run.data.tags["checkpoint"])
    assert file == (tmp_path / stage.key / "checkpoint.pt").resolve()
    assert run.data.tags["checkpoint_bytes"] == str(file.stat().st_size)
    assert run.data.tags["checkpoint_sha256"] == files.sha256(file)


def files_of(client: MlflowClient, run: Any, place: Path) -> dict[str, str]:
    """The text of each artifact of a run, by name."""
    place.mkdir(exist_ok=True)
    return {
        item.path: Path(client.download_artifacts(run.info.run_id, item.path, str(place))).read_text()
        for item in client.list_artifacts(run.info.run_id)
    }


def test_small_files_follow_the_journal_and_are_what_it_says_or_are_named(tmp_path: Path) -> None:
    stage, folder, copied = TRAININGS[0], tmp_path / TRAININGS[0].key, tmp_path / "copied"
    journal = opened(tmp_path, stage)
    (folder / "stage.json").write_text('{"key": 1}')
    journal.artifact("ranges.csv", b"old")
    client = synced(tmp_path, stage)
    assert files_of(client, the_run(tmp_path, stage), copied) == {
        "stage.json": '{"key": 1}',
        "ranges.csv": "old",
    }
    journal.artifact("ranges.csv", b"new")
    journal.artifact("plot.svg", b"<svg/>")
    journal.artifact("large.bin", b"0" * (run_contents.LARGEST + 1))
    (folder / "stage.json").write_text("this attempt's is uploaded already")
    synced(tmp_path, stage)
    run = the_run(tmp_path, stage)
    wanted = {"stage.json": '{"key": 1}', "ranges.csv": "new", "plot.svg": "<svg/>"}
    assert files_of(client, run, copied) == wanted
    assert run.data.tags["artifacts_left_out"] == "large.bin: 5.0 MiB, more than 5"
    (folder / "artifacts" / "plot.svg").write_text("changed by somebody")
    score(journal, 1, 50.0)
    synced(tmp_path, stage)
    run = the_run(tmp_path, stage)
    assert files_of(client, run, copied) == wanted, "MLflow keeps the one that was recorded"
    assert "plot.svg: not the file that was recorded" in run.data.tags["artifacts_left_out"]


def test_a_run_that_is_made_anew_has_its_small_files_again(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    for attempt in (1, 2):
        journal = opened(tmp_path, stage)
        score(journal, 1, 50.0 + attempt)
        if attempt == 1:
            journal.artifact("ranges.csv", b"once")
        journal.close()
        client = synced(tmp_path, stage)
    assert the_run(tmp_path, stage).data.metrics["top1"] == 52.0
    assert files_of(client, the_run(tmp_path, stage), tmp_path / "copied") == {"ranges.csv": "once"}


def test_a_run_that_an_earlier_version_synced_gets_the_files_and_parameters_that_came_since(
    tmp_path: Path,
) -> None:
    stage = RECIPES[0]
    run_through(tmp_path, stage)
    (tmp_path / stage.key / "stage.json").write_text('{"key": 1}')
    client = synced(tmp_path, stage)
    run, copied = the_run(tmp_path, stage), tmp_path / "copied"
    cursor = json.loads(run.data.tags[SYNCED])
    for newer in ("record", "files"):
        del cursor[newer]
    client.set_tag(run.info.run_id, "synced", json.dumps(cursor))
    for tag in (RECORD, SYNCED):
        client.delete_tag(run.info.run_id, tag)
    Path(unquote(urlparse(run.info.artifact_uri).path), "stage.json").unlink()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        assert database.execute("delete from params where key in ('batch_norm', 'edges')").rowcount == 2
    assert files_of(client, run, copied) == {}
    synced(tmp_path, stage)
    run = the_run(tmp_path, stage)
    assert files_of(client, run, copied) == {"stage.json": '{"key": 1}'}
    assert run.data.params == {name: str(value) for name, value in stage.params.items()}
    assert {RECORD, SYNCED} <= run.data.tags.keys() and not {"record", "synced"} & run.data.tags.keys()


@pytest.mark.parametrize("start", [TRAININGS[0], PRETRAINED], ids=["trained", "pretrained"])
def test_a_run_whose_momentum_was_the_methods_gives_way_to_one_with_both(
    tmp_path: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow changes no parameter: what an earlier version recorded wrongly, a run of its own records anew."""
    wrong, right = Recipe(start, Percentile(4, 4)), Recipe(TRAININGS[0], Amax(4, 4))
    for stage in (wrong, right):
        run_through(tmp_path, stage)
        Journal(tmp_path / stage.key).artifact("ranges.csv", b"kept")
    as_then = {name: value for name, value in wrong.params.items() if name != "method_momentum"}
    with monkeypatch.context() as patch:
        patch.setattr(sync_run, "VERSION", 1)
        patch.setattr(Recipe, "params", property(lambda stage: as_then | {"momentum": 0.1}))
        synced(tmp_path, wrong)
        patch.undo()
        patch.setattr(sync_run, "VERSION", 1)
        client = synced(tmp_path, wrong, right)
    then = {key: the_run(tmp_path, stage) for key, stage in {"wrong": wrong, "right": right}.items()}
    assert then["wrong"].data.params.get("momentum") == "0.1"
    for _ in range(2):
        synced(tmp_path, wrong, right)
        now = {key: the_run(tmp_path, stage) for key, stage in {"wrong": wrong, "right": right}.items()}
        assert now["right"].info.run_id == then["right"].info.run_id
        assert now["wrong"].info.run_id != then["wrong"].info.run_id
        assert now["wrong"].data.params == {name: str(value) for name, value in wrong.params.items()}
        assert now["wrong"].data.params["method_momentum"] == "0.1"
        assert now["wrong"].data.params.get("momentum") == (None if start is PRETRAINED else "0.9")
        assert now["wrong"].data.metrics == then["wrong"].data.metrics
        assert files_of(client, now["wrong"], tmp_path / "copied") == {"ranges.csv": "kept"}
    assert client.get_run(then["wrong"].info.run_id).info.lifecycle_stage == "deleted"


@pytest.mark.parametrize(
    ("event", "facts", "status", "cause"),
    [
        ("failed", {"error": "out of memory", "cause": "memory"}, "FAILED", "memory"),
        ("failed", {"error": "node n2 died", "cause": "node"}, "FAILED", "node"),
        ("interrupted", {"signal": "SIGTERM"}, "KILLED", "stopped by SIGTERM"),
        ("cancelled", {"job": "12_3"}, "KILLED", "cancelled"),
        ("metrics", {"step": 1, "values": {"top1": 1.0}}, "KILLED", "killed: no error recorded"),
    ],
)
def test_a_run_that_died_is_closed_with_its_cause(
    tmp_path: Path, event: str, facts: dict[str, Any], status: str, cause: str
) -> None:
    journal = opened(tmp_path, TRAININGS[0])
    journal.write(event, **facts)
    journal.close()
    synced(tmp_path, TRAININGS[0])
    run = the_run(tmp_path, TRAININGS[0])
    assert (run.info.status, run.data.tags["cause"]) == (status, cause)
    assert run.info.end_time >= run.info.start_time
    run_through(tmp_path, TRAININGS[0])
    synced(tmp_path, TRAININGS[0])
    assert the_run(tmp_path, TRAININGS[0]).data.tags.get("cause", "") == ""


def test_the_experiment_says_what_the_sweep_asks_and_a_text_of_the_users_own_stays(tmp_path: Path) -> None:
    run_through(tmp_path, SWEEP[0])
    save_sweep(tmp_path, "demo", {}, SWEEP, "How few bits are enough?\n\nAnd why.")
    client = synced(tmp_path)

    def note() -> str:
        return str(client.get_experiment_by_name("demo").tags["mlflow.note.content"])

    assert note().startswith("Sweep `demo`: [its runs](#/experiments/")
    assert note().endswith("). How few bits are enough?\n\nAnd why.")
    save_sweep(tmp_path, "demo", {}, SWEEP, "Something else?")
    synced(tmp_path)
    assert note().endswith("). Something else?")
    experiment = client.get_experiment_by_name("demo").experiment_id
    client.set_experiment_tag(experiment, "mlflow.note.content", "mine")
    synced(tmp_path)
    assert note() == "mine"


def test_a_training_that_diverged_is_tagged_with_its_step(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    journal = opened(tmp_path, stage)
    journal.write("failed", error="the loss became inf or NaN in step 7", cause="diverged", traceback="")
    journal.close()
    sync.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert (run.info.status, run.data.tags["diverged"]) == ("FAILED", "the loss became inf or NaN in step 7")
