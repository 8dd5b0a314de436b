"""Runs with a width for each layer stand at their budget, in every table and from every source."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fakes.runs_folder import plan, stage
from fakes.width_sweeps import sweep

from analysis.__main__ import main
from analysis.compare import pareto, versus_best
from analysis.compare.configurations import load, point
from analysis.draw import drop
from analysis.errors import AnalysisError
from analysis.read import run_folders
from analysis.read.budgets import by_budget, with_widths
from analysis.report import results, tables


def test_each_choice_is_named_by_its_score_and_stands_at_the_bits_of_its_budget(tmp_path: Path) -> None:
    sweep(tmp_path)
    found = results.load(tmp_path, "small")
    assert [point(row) for row in found.summary.to_dict("records")] == [
        "float",
        *(f"mixed, by gradient {widths}" for widths in ("w4a4", "w3a3", "w2.5a2.5")),
        *(f"mixed, random {widths}" for widths in ("w4a4", "w3a3", "w2.5a2.5")),
        *(f"mixed, uniform {widths}" for widths in ("w8a8", "w4a4", "w3a3")),
    ]
    (table,) = tables.sections(tables.joined(found.summary, found.comparison))
    assert [row[2:5] for row in table.rows if row[0] == "mixed, by gradient"] == [
        ("4", "4", "88.50 (1)"),
        ("3", "3", "87.50 (1)"),
        ("2.5", "2.5", "87.00 (1)"),
    ]
    heading, _, *lines = tables.summary(found).splitlines()[2:]
    assert [cell.strip() for cell in heading.split("|")[3:-1]] == ["float", "8", "4", "3", "2.5"]
    assert [line.split("|")[1].strip() for line in lines[:4]] == [
        "float",
        "mixed, by gradient",
        "mixed, random",
        "mixed, uniform",
    ]
    assert "2.5" in found.marked.to_csv() and "4.0" not in found.summary.to_csv(columns=["weight_bits"])


def test_draws_are_called_draws_and_their_mean_is_no_choice(tmp_path: Path) -> None:
    sweep(tmp_path)
    found = results.load(tmp_path, "small")
    assert "86.75" not in tables.markdown(found)
    assert "(10 draws)" in tables.markdown(found) and "n counts draws of widths" in tables.markdown(found)
    assert "(10 draws)" in tables.summary(found)
    front = pareto.sound_front(found.summary, pareto.SIZE)
    assert not [label for label in front["label"] if "random" in label]
    only = found.summary.assign(
        model_size_mb=[0.1 if "random" in label else 9.0 for label in found.summary["label"]]
    )
    assert not [label for label in pareto.sound_front(only, pareto.SIZE)["label"] if "random" in label]
    figure = drop.figure(found.marked, found.summary, found.comparison)
    assert figure.legends[0].get_texts()[0].get_text() == "one draw of widths"


def test_pairs_are_of_one_budget_and_all_draws_are_compared(tmp_path: Path) -> None:
    sweep(tmp_path)
    table = versus_best.table(tmp_path, load(tmp_path, "small")[0])
    names = list(map(point, table.to_dict("records")))
    assert names == [
        *("mixed, by gradient w4a4", "mixed, random w4a4", "mixed, uniform w4a4"),
        *("mixed, by gradient w3a3", "mixed, random w3a3", "mixed, uniform w3a3"),
        *("mixed, by gradient w2.5a2.5", "mixed, random w2.5a2.5"),
    ]
    rows = dict(zip(names, table.to_dict("records"), strict=True))
    assert rows["mixed, random w4a4"]["n"] == 10 and rows["mixed, uniform w4a4"]["n"] == 1
    assert rows["mixed, random w4a4"]["top1"] == pytest.approx(84.5)
    assert rows["mixed, random w4a4"]["difference"] == pytest.approx(-4.0)


def test_a_runs_csv_gives_the_same_tables_and_an_older_one_is_read_as_today(tmp_path: Path) -> None:
    sweep(tmp_path / "runs")
    today = load(tmp_path / "runs", "small")[0]
    for name, table in (("today", today), ("older", as_older(today))):
        file = tmp_path / f"{name}.csv"
        table.to_csv(file, index=False)
        found = load(tmp_path, "any", str(file))[0]
        for column in ("weight_bits", "act_bits", "configuration", "label", "draw_seed"):
            assert found[column].tolist() == today[column].tolist(), (name, column)


def as_older(table: pd.DataFrame) -> pd.DataFrame:
    """With the widths of the method, and a seed of draws beside widths that are not drawn."""
    older = table.copy()
    for name in ("weight_bits", "act_bits"):
        older[name] = [3 if bits == 2.5 else bits for bits in older[name]]
    older["draw_seed"] = [
        0 if kind == "Recipe" and seed is None else seed
        for kind, seed in zip(older["kind"], older["draw_seed"], strict=True)
    ]
    return older


def test_the_report_and_the_export_take_half_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "runs")
    options = ["--runs", str(tmp_path / "runs")]
    assert main(["small", *options, "--out", str(tmp_path)]) == 0
    assert main(["export", "small", *options, "--parquet", str(tmp_path / "a.parquet")]) == 0
    assert pd.read_parquet(tmp_path / "a.parquet")["weight_bits"].dtype == "float64"
    written = {file.name for file in (tmp_path / "small").iterdir()}
    assert {"widths.md", "widths.csv", "chosen-widths.csv", "layer-costs.csv", "width-front.svg"} <= written
    assert "accuracy.svg" not in written and "drop.svg" in written
    assert "2.5 / 2.5" in (tmp_path / "small" / "report.html").read_text()
    assert "by gradient" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("params", "widths"),
    [
        ({"size_bits": 3.0, "bops_per_mac": 16.0}, (3, 5.33)),
        ({"size_bits": 4.0, "bops_per_mac": 128.0}, (4, 32)),
        ({"size_bits": 0, "bops_per_mac": 6.25}, (3, 4)),
        ({"size_bits": 2.5, "bops_per_mac": 0}, (3, 4)),
        ({"size_bits": "x", "bops_per_mac": [1]}, (3, 4)),
        ({"size_bits": float("nan"), "bops_per_mac": float("inf")}, (3, 4)),
        ({"size_bits": 2.5, "bops_per_mac": 1e30}, (3, 4)),
        ({"size_bits": True, "bops_per_mac": 4}, (3, 4)),
        ({}, (3, 4)),
        ({"size_bits": 2.5, "bops_per_mac": 6.25, "by": "uniform"}, (3, 4)),
        ({"size_bits": 2.5, "bops_per_mac": 6.25, "method": "mse"}, (3, 4)),
    ],
)
def test_without_both_budgets_a_run_keeps_the_widths_of_its_method(
    params: dict[str, object], widths: tuple[float, float]
) -> None:
    found = by_budget({"method": "mixed", "by": "noise", "weight_bits": 3, "act_bits": 4, **params})
    assert (found["weight_bits"], found["act_bits"]) == widths


def test_what_is_no_width_is_refused(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    plan(tmp_path / "runs", start, stage("amax", 4, 0, start))
    table = load(tmp_path / "runs", "small")[0]
    for wrong in ("nan", "x", ""):
        table.assign(weight_bits=[32, wrong]).to_csv(tmp_path / "runs.csv", index=False)
        with pytest.raises(AnalysisError, match="is no table of runs"):
            run_folders.from_csv(tmp_path / "runs.csv")
    assert with_widths(pd.DataFrame(columns=["weight_bits", "act_bits"])).empty
