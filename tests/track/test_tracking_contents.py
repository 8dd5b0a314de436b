"""What MLflow has beside parameters and points: data sets, causes, checkpoints, the sweep's question, the best."""

from __future__ import annotations

import base64
import csv
import json
import shlex
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from fakes.tracking import SWEEP, TRAININGS, opened, run_sweep, run_through, runs_in, score, the_run
from mlflow.tracking import MlflowClient

from analysis.compare import significance
from suite.cli.main import main
from suite.methods.amax import Amax
from suite.methods.percentile import Percentile
from suite.recipe import FORMAT, Dataset, Network, Pretrained, Recipe
from suite.record import files
from suite.record.journal import Journal
from suite.record.method_colours import colour_of
from suite.record.status import Status, status_of
from suite.record.synced import mlflow_pages
from suite.run import checkpoint
from suite.sweeps.stored import save_sweep
from suite.track import result, run_contents, store, sync, sync_run, ui_view
from suite.track.registry import best_by_width
from suite.track.tags import RECORD, SYNCED
from suite.track.ui_view import pages

RECIPES = [stage for stage in SWEEP if isinstance(stage, Recipe)]
PRETRAINED = Pretrained(Network(), Dataset("cifar10"), "weights.pt", "0" * 64)


@pytest.fixture(autouse=True)
def _embedded(tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(database)


def synced(runs: Path, *stages: Any) -> MlflowClient:
    sync.sync("demo", stages or SWEEP, runs)
    return MlflowClient(store.uri(runs))


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

    assert note() == "Sweep `demo`: How few bits are enough?\n\nAnd why."
    save_sweep(tmp_path, "demo", {}, SWEEP, "Something else?")
    synced(tmp_path)
    assert note() == "Sweep `demo`: Something else?"
    experiment = client.get_experiment_by_name("demo").experiment_id
    client.set_experiment_tag(experiment, "mlflow.note.content", "mine")
    synced(tmp_path)
    assert note() == "mine"


def aliases(client: MlflowClient) -> dict[str, Any]:
    (model,) = client.search_registered_models("name = 'demo'")
    return {alias: client.get_model_version("demo", version) for alias, version in model.aliases.items()}


def test_the_best_recipe_of_each_width_is_a_model_version_and_gives_way_to_a_better_one(
    tmp_path: Path,
) -> None:
    run_sweep(tmp_path)
    client = synced(tmp_path)
    for _ in range(2):
        found = aliases(client)
        best = {
            stage.params["weight_bits"]: stage for stage in RECIPES
        }  # each has more top1 than those before
        assert set(found) == {f"best-w{bits}" for bits in best} == {"best-w4", "best-w5", "best-w8"}
        for bits, stage in best.items():
            version = found[f"best-w{bits}"]
            assert version.run_id == the_run(tmp_path, stage).info.run_id
            assert version.source == (tmp_path / stage.key).resolve().as_uri()
            assert version.tags["stage_key"] == stage.key
        assert len(client.search_model_versions("name = 'demo'")) == 3
        synced(tmp_path)
    better = RECIPES[0]
    assert better.params["weight_bits"] == 4
    for file in (tmp_path / better.key).iterdir():
        file.unlink()
    run_through(tmp_path, better, top1=99.0)
    synced(tmp_path)
    assert aliases(client)["best-w4"].tags["stage_key"] == better.key
    assert len(client.search_model_versions("name = 'demo'")) == 4


def test_only_finished_recipes_are_the_best_and_of_equals_the_first(tmp_path: Path) -> None:
    assert best_by_width([status_of(stage, tmp_path) for stage in SWEEP]) == {}
    for stage in SWEEP:
        run_through(tmp_path, stage, top1=70.0)
    opened(tmp_path, RECIPES[0]).close()
    (tmp_path / RECIPES[0].key / "outcome.json").unlink()
    files.write_json(
        {"format": FORMAT, "key": RECIPES[1].key, "top1": None, "loss": None},
        tmp_path / RECIPES[1].key / "outcome.json",
    )
    found = best_by_width([status_of(stage, tmp_path) for stage in SWEEP])
    firsts = {bits: next(s for s in RECIPES[2:] if s.params["weight_bits"] == bits) for bits in (4, 5, 8)}
    assert {bits: now.stage for bits, now in found.items()} == firsts
    assert list(found) == [4, 5, 8]


def test_the_pages_are_the_leaderboard_all_runs_their_charts_and_the_best() -> None:
    found = pages("http://host:5000", "7", ["a1", "b2"])
    start = "http://host:5000/#/experiments/7/runs?workflowType=machine_learning&compareRunsMode="
    modes = {"table": "TABLE", "all runs": "TABLE", "chart": "CHART", "compare the best": "CHART"}
    assert found.keys() == modes.keys()
    for what, mode in modes.items():
        assert found[what].startswith(f"{start}{mode}&viewStateShareKey=suite-")
    assert set(pages("http://host:5000", "7", ["a1"])) == {"table", "all runs", "chart"}


def state_of(value: str) -> Any:
    """The state that the tag of a saved view holds."""
    packed = json.loads(value)["state"].removeprefix("deflate;")
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_the_saved_views_group_by_configuration_and_the_best_are_named_by_their_runs(tmp_path: Path) -> None:
    run_sweep(tmp_path)
    synced(tmp_path)
    client = MlflowClient(store.uri(tmp_path))
    tags = client.get_experiment_by_name("demo").tags
    states = {
        name.rpartition(".")[2]: state_of(value) for name, value in tags.items() if "sharedViewState" in name
    }
    assert set(states) == {
        f"suite-{view}" for view in ("leaderboard", "runs", "best", "w4a4", "w8a8", "trainings")
    }
    experiment = client.get_experiment_by_name("demo").experiment_id
    found = {
        name: client.search_runs([experiment], state["searchFilter"], order_by=[state["orderByKey"]])
        for name, state in states.items()
    }
    fours = [run.data.tags["configuration"] for run in found["suite-w4a4"]]
    float_stage = TRAININGS[0].name.removesuffix(" seed 0")
    assert sorted(fours) == [
        f"{name} w4a4 from {float_stage}" for name in ("amax", "percentile") for _ in range(2)
    ]
    assert len(found["suite-leaderboard"]) == len(RECIPES) and len(found["suite-trainings"]) == len(TRAININGS)
    assert len(found["suite-best"]) == 3
    by = states["suite-leaderboard"]["groupBy"]["groupByKeys"]
    assert by == [{"mode": "tag", "groupByData": "configuration"}]


def test_a_recipe_has_its_drop_its_user_a_description_and_a_link_to_its_float_run(tmp_path: Path) -> None:
    start, recipe = TRAININGS[0], RECIPES[0]
    assert recipe.start == start
    run_through(tmp_path, start, top1=91.0)
    run_through(tmp_path, recipe, top1=88.5)
    sync.sync("demo", [start, recipe], tmp_path)
    run, of_start = the_run(tmp_path, recipe), the_run(tmp_path, start)
    assert run.data.metrics["drop"] == 2.5 and "drop" not in of_start.data.metrics
    assert run.data.tags["mlflow.user"] == tmp_path.owner()
    assert run.data.tags["mlflow.runColor"] == colour_of("amax")
    assert "2.50 points below float" in run.data.tags["mlflow.note.content"]
    assert f"/runs/{of_start.info.run_id}?" in run.data.tags["mlflow.note.content"]
    client = MlflowClient(store.uri(tmp_path))
    client.set_tag(run.info.run_id, "mlflow.note.content", "mine")
    client.set_tag(run.info.run_id, SYNCED, "{}")
    sync.sync("demo", [start, recipe], tmp_path)
    assert the_run(tmp_path, recipe).data.tags["mlflow.note.content"] == "mine"


def test_the_interval_of_a_drop_is_paired_where_both_runs_recorded_every_image(tmp_path: Path) -> None:
    start, recipe = TRAININGS[0], RECIPES[0]
    right = {start.key: [True] * 90 + [False] * 10, recipe.key: [True] * 86 + [False] * 10 + [True] * 4}
    statuses = []
    for stage in (start, recipe):
        bits = np.array(right[stage.key])
        packed = base64.b64encode(np.packbits(bits).tobytes()).decode()
        outcome = {"top1": float(bits.mean() * 100), "images": 100, "correct": packed}
        statuses.append(Status(stage, "done", outcome=outcome))
    found = result.drop(statuses[1], statuses[0])
    expected = significance.paired(*(np.array(right[stage.key]) for stage in (recipe, start)))
    assert found == {
        "drop": 0.0,
        "drop_low": round(expected["low"], 2),
        "drop_high": round(expected["high"], 2),
    }
    for status in statuses:
        assert status.outcome is not None
        del status.outcome["correct"]
    assert result.drop(statuses[1], statuses[0])["drop_high"] > found["drop_high"]


def test_a_run_that_repeats_a_published_number_is_tagged_with_it_and_the_verdict(tmp_path: Path) -> None:
    recipe = RECIPES[0]
    run_through(tmp_path, recipe)
    wanted = {k: v for k, v in recipe.params.items() if not k.endswith("seed") and v is not None}
    (tmp_path / "report").mkdir()
    with (tmp_path / "report" / "published.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["source", "published_label", "metric", "published", "configuration", "verdict"])
        rows.writerow(["002", "4bit", "top1", "64.62", json.dumps(wanted, default=str), "drop reproduced"])
        rows.writerow(["002", "4bit", "top1", "64.62", "", "not run"])
    sync.sync("demo", [recipe], tmp_path, tmp_path / "report")
    tags = the_run(tmp_path, recipe).data.tags
    assert (tags["published"], tags["verdict"]) == ("002 4bit: 64.62 %", "drop reproduced")


def test_status_names_the_pages_that_the_last_sync_noted_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sweep(tmp_path)
    save_sweep(tmp_path, "demo", {}, SWEEP)
    synced(tmp_path)
    assert mlflow_pages(tmp_path, "demo") == {}
    place = store.uri(tmp_path)
    monkeypatch.setattr(store, "uri", lambda runs: place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://bob:secret@mlflow.example/prefix/")
    synced(tmp_path)
    assert main(["status", "demo", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    (experiment,) = {run.info.experiment_id for run in runs_in(place)}
    for mode in ("TABLE", "CHART"):
        assert f"https://mlflow.example/prefix/#/experiments/{experiment}/runs?" in said and mode in said
    assert "suite-best" in said
    assert "secret" not in said


def test_the_command_that_opens_mlflow_survives_a_shell_and_a_folder_with_a_space(tmp_path: Path) -> None:
    command, link = store.how_to_open("7", tmp_path / "my runs").splitlines()
    assert shlex.split(command)[-1] == f"sqlite:///{tmp_path}/my runs/mlflow.db"
    assert link.startswith("http://127.0.0.1:5000/#/experiments/7/runs?")
    assert json.loads(ui_view.views(5)["suite-runs"])["createdAt"] == 5


def test_a_training_that_diverged_is_tagged_with_its_step(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    journal = opened(tmp_path, stage)
    journal.write("failed", error="the loss became inf or NaN in step 7", cause="diverged", traceback="")
    journal.close()
    sync.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert (run.info.status, run.data.tags["diverged"]) == ("FAILED", "the loss became inf or NaN in step 7")
