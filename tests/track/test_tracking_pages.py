"""The best recipes are model versions, and the pages of a sweep are named."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fakes.tracking import RECIPES, SWEEP, opened, run_sweep, run_through, runs_in, synced, the_run
from mlflow.tracking import MlflowClient

from suite.cli.main import main
from suite.recipe import FORMAT
from suite.record import files
from suite.record.status import status_of
from suite.record.synced import mlflow_pages
from suite.sweeps.stored import save_sweep
from suite.track import store, ui_view
from suite.track.registry import best_by_width
from suite.track.ui_view import pages

pytestmark = pytest.mark.usefixtures("embedded")


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


def test_the_pages_are_the_table_the_charts_and_a_comparison_of_the_best() -> None:
    found = pages("http://host:5000", "7", ["a1", "b2"])
    start = "http://host:5000/#/experiments/7/runs?workflowType=machine_learning&compareRunsMode="
    assert found["table"].startswith(f"{start}TABLE&viewStateShareKey=")
    assert found["chart"].startswith(f"{start}CHART&viewStateShareKey=")
    assert unquote(found["compare the best"]) == (
        'http://host:5000/#/compare-runs?runs=["a1", "b2"]&experiments=["7"]'
    )
    assert set(pages("http://host:5000", "7", ["a1"])) == {"table", "chart"}


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
    assert "compare-runs?runs=" in said
    assert "secret" not in said


def test_the_command_that_opens_mlflow_survives_a_shell_and_a_folder_with_a_space(tmp_path: Path) -> None:
    command, link = store.how_to_open("7", tmp_path / "my runs").splitlines()
    assert shlex.split(command)[-1] == f"sqlite:///{tmp_path}/my runs/mlflow.db"
    assert link.startswith("http://127.0.0.1:5000/#/experiments/7/runs?")
    assert json.loads(ui_view.leaderboard(5))["createdAt"] == 5
