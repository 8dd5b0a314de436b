"""Runs that an older version recorded are read as those of today."""

from __future__ import annotations

from pathlib import Path

from fakes.runs_folder import Json, finish, plan, stage

from analysis.compare import configurations
from analysis.read.run_folders import load
from analysis.report import results


def trainings(runs: Path, newer: bool) -> list[Json]:
    """Two trainings, with momentum 0.9 and 0.0, and `percentile` on each. An older version wrote the method's momentum
    in place of the training's."""
    stages = []
    for momentum in (0.9, 0.0):
        start = stage("float", 32, 0, momentum=momentum)
        own = {"momentum": momentum, "method_momentum": 0.1} if newer else {"momentum": 0.1}
        stages += [start, stage("percentile", 4, 0, start, **own)]
    for number, what in enumerate(stages):
        finish(runs, what, 90.0 + number)
    plan(runs, *stages)
    return stages


def test_two_trainings_are_two_configurations_whichever_version_recorded_them(tmp_path: Path) -> None:
    tables = {}
    for newer in (True, False):
        runs = tmp_path / str(newer)
        trainings(runs, newer)
        tables[newer] = configurations.mark(load(runs, "small")[0])
        recipes = tables[newer][tables[newer]["kind"] == "Recipe"]
        assert recipes["momentum"].tolist() == [0.9, 0.0]
        assert recipes["method_momentum"].tolist() == [0.1, 0.1]
        assert results.load(runs, "small").summary["n"].tolist() == [1, 1, 1, 1]
    assert tables[True]["configuration"].tolist() == tables[False]["configuration"].tolist()
    assert tables[True]["label"].tolist() == tables[False]["label"].tolist()


def test_on_a_checkpoint_the_momentum_of_an_older_recipe_is_the_methods_alone(tmp_path: Path) -> None:
    start = stage("float", 32, 0, checkpoint="w.pt")
    plan(tmp_path, start, stage("percentile", 4, 0, start, momentum=0.1), stage("amax", 4, 0, start))
    table = load(tmp_path, "small")[0]
    assert table["method_momentum"].tolist() == [None, 0.1, None]
    assert "momentum" not in table


def test_an_older_runs_csv_is_grouped_as_today(tmp_path: Path) -> None:
    """Here with today's labels and configurations taken out, as a version that merged both trainings wrote it."""
    trainings(tmp_path / "runs", newer=True)
    today = configurations.load(tmp_path / "runs", "small")[0]
    older = today.copy()
    is_recipe = older["kind"] == "Recipe"
    older.loc[is_recipe, "momentum"] = 0.1
    older.loc[is_recipe, ["configuration", "label"]] = "percentile"
    older.drop(columns=["method_momentum"]).to_csv(tmp_path / "runs.csv", index=False)
    found = configurations.load(tmp_path, "any", str(tmp_path / "runs.csv"))[0]
    assert found["momentum"].tolist() == [0.9, 0.9, 0.0, 0.0]
    assert found["configuration"].tolist() == today["configuration"].tolist()
    assert found["label"].tolist() == today["label"].tolist()


def test_the_ends_of_older_schemes_have_the_width_that_their_field_says(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    older = {"edges": "as the rest"}
    stages = [
        start,
        stage("scheme", 4, 0, start, first_last=8, **older),
        stage("scheme", 3, 0, start, first_last=None, **older),
        stage("mixed", 4, 0, start, of="scheme first last 8", **older),
        stage("mixed", 3, 0, start, of="scheme", **older),
        stage("best", 4, 0, start, first_last=None, **older),
    ]
    for number, what in enumerate(stages):
        finish(tmp_path / "runs", what, 90.0 + number)
    plan(tmp_path / "runs", *stages)
    found = configurations.load(tmp_path / "runs", "small")[0]
    wanted = ["8 bits", "as the rest", "8 bits", "as the rest", "as the rest"]
    assert found["edges"].tolist()[1:] == wanted
    found.loc[found["kind"] == "Recipe", "edges"] = "as the rest"
    found.to_csv(tmp_path / "runs.csv", index=False)
    assert configurations.load(tmp_path, "any", str(tmp_path / "runs.csv"))[0]["edges"].tolist()[1:] == wanted


def test_the_runs_csv_of_today_is_read_as_it_was_written(tmp_path: Path) -> None:
    trainings(tmp_path / "runs", newer=True)
    today = configurations.load(tmp_path / "runs", "small")[0]
    today.to_csv(tmp_path / "runs.csv", index=False)
    found = configurations.load(tmp_path, "any", str(tmp_path / "runs.csv"))[0]
    assert found["configuration"].tolist() == today["configuration"].tolist()
