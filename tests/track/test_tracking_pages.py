"""The best recipes are model versions, and the pages of a sweep are named."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import shlex
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.statuses import status_of
from fakes.tracking import RECIPES, SWEEP, TRAININGS, opened, run_sweep, run_through, runs_in, synced, the_run
from mlflow.tracking import MlflowClient

from analysis.compare import significance
from suite.cli.main import main
from suite.recipe import FORMAT
from suite.record import files
from suite.record.method_colours import colour_and_marker
from suite.record.status import Status
from suite.record.synced import mlflow_pages
from suite.sweeps.stored import save_sweep
from suite.track import result, store, sync, ui_view
from suite.track.registry import best_by_width
from suite.track.tags import SYNCED
from suite.track.ui_view import pages

pytestmark = pytest.mark.usefixtures("embedded")


def aliases(client: MlflowClient) -> dict[str, Any]:
    (model,) = client.search_registered_models("name = 'demo'")
    return {alias: client.get_model_version("demo", version) for alias, version in model.aliases.items()}


def test_the_best_recipe_of_each_pair_of_widths_is_a_model_version_and_gives_way_to_a_better_one(
    tmp_path: Path,
) -> None:
    run_sweep(tmp_path)
    client = synced(tmp_path)
    for _ in range(2):
        found = aliases(client)
        # Of each pair of widths the last method has the highest mean; its first seed stands for it.
        best = {"w4a4": "percentile", "w5": "k_sigma", "w8": "k_sigma", "w8a8": "qat_symmetric"}
        assert set(found) == {f"best-{widths}" for widths in best}
        for widths, method in best.items():
            version = found[f"best-{widths}"]
            stage = next(s for s in RECIPES if s.params["method"] == method and widths in s.name)
            assert version.run_id == the_run(tmp_path, stage).info.run_id
            assert version.source == (tmp_path / stage.key).resolve().as_uri()
            assert version.tags["stage_key"] == stage.key
        assert len(client.search_model_versions("name = 'demo'")) == 4
        synced(tmp_path)
    better = RECIPES[0]
    assert better.params["weight_bits"] == 4
    for file in (tmp_path / better.key).iterdir():
        file.unlink()
    run_through(tmp_path, better, top1=99.0)
    synced(tmp_path)
    client.set_registered_model_alias("demo", "best-w4", "1")  # as an older version named it
    synced(tmp_path, *SWEEP)
    assert aliases(client)["best-w4a4"].tags["stage_key"] == better.key
    assert "best-w4" not in aliases(client)
    assert len(client.search_model_versions("name = 'demo'")) == 5


def test_the_luckiest_seed_does_not_make_a_configuration_the_best(tmp_path: Path) -> None:
    lucky, steady = (
        [s for s in RECIPES if s.params["method"] == name and s.params["weight_bits"] == 4]
        for name in ("amax", "percentile")
    )
    for stage, top1 in zip([*lucky, *steady], (99.0, 60.0, 85.0, 84.0), strict=True):
        run_through(tmp_path, stage, top1=top1)
    statuses = [status_of(stage, tmp_path) for stage in [*lucky, *steady]]
    assert best_by_width(statuses) == {"w4a4": statuses[2]}
    assert best_by_width(statuses[:3]) == {"w4a4": statuses[2]}


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
    firsts = {pair: next(s for s in RECIPES[2:] if s.name.split()[1] == pair) for pair in found}
    assert {pair: now.stage for pair, now in found.items()} == firsts
    assert list(found) == ["w4a4", "w5", "w8a8", "w8"]


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


def test_groups_are_folded_as_long_as_their_names_fit_into_a_tag() -> None:
    def expanded(names: Sequence[str]) -> Any:
        state = json.loads(ui_view.views(5, names)["suite-leaderboard"])["state"].removeprefix("deflate;")
        return json.loads(zlib.decompress(base64.b64decode(state)))["groupsExpanded"]

    few = ["amax w4a4 from train resnet20", "amax w8a8 from train resnet20"]
    assert expanded([*few, few[0]]) == {f"tag.configuration.{name}": False for name in few}
    many = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(1000)]
    assert expanded(many) == {}
    assert all(len(tag) <= 20_000 for tag in ui_view.views(5, many).values())


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
    assert len(found["suite-best"]) == 4
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
    assert run.data.tags["mlflow.runColor"] == colour_and_marker("amax")[0]
    assert "2.50 points below float" in run.data.tags["mlflow.note.content"]
    assert "Scale-only symmetric quantization" in run.data.tags["mlflow.note.content"], (
        "as `suite methods` says"
    )
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
    assert (tags["published"], tags["verdict"]) == ("4bit (002): 64.62 %", "drop reproduced")
