"""The section of widths by layer stands where such runs are, reads them with care, and compares at equal budgets."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from fakes.layer_records import NAMES, keep
from fakes.runs_folder import Json, finish, plan, stage

from analysis.compare import widths
from analysis.page import width_sections
from analysis.page.parts import Lines, Picture, Table
from analysis.report import results


def record(bits: int, by: str, declared: bool = False) -> Json:
    scores = {str(width): 2.0**-width for width in (2, 3, 4, 5, 6, 8)} if by == "gradient" else {}
    layers = [
        {
            **{"name": name, "weight_bits": bits, "input_bits": bits, "weights": 10, "macs": 100},
            **{"declared": declared, "scores": {"weight": scores, "input": {}}},
        }
        for name in NAMES
    ]
    totals = {
        "mean_weight_bits": bits,
        "mean_weight_bits_by_layer": bits,
        "bops": bits**2 * 1e6,
        "size_mb": bits / 9,
    }
    return {"format": 1, "by": by, **totals, "layers": layers}


def sweep(runs: Path) -> list[Json]:
    """Uniform at three widths; at two budgets a choice and ten random ones, of which it beats nine."""
    start = stage("float", 32, 0)
    finish(runs, start, 92.0)
    stages = [start]
    for bits, by in itertools.product((8, 4, 3), ("uniform", "gradient", "random")):
        for draw in range(10 if by == "random" else 1):
            if bits == 8 and by != "uniform":
                continue
            params = {
                "of": "mse",
                "by": by,
                "size_bits": float(bits),
                "bops_per_mac": bits**2.0,
                "draw_seed": draw,
            }
            stages.append(stage("mixed", bits, 0, start, **params))
            top1 = {"uniform": 80.0, "gradient": 84.5, "random": 76.0 + draw}[by] + bits
            finish(runs, stages[-1], top1)
            keep(runs, stages[-1], "widths.json", record(bits, by))
    plan(runs, *stages)
    return stages


def test_chosen_widths_stand_beside_uniform_and_random_ones_of_the_same_budget(tmp_path: Path) -> None:
    sweep(tmp_path)
    found = width_sections.section(results.load(tmp_path, "small"))
    assert found is not None
    pictures = [part.name for part in found.parts if isinstance(part, Picture)]
    assert pictures == ["layer-costs", "width-front", "chosen-widths"]
    by_layer, table = [part for part in found.parts if isinstance(part, Table)]
    assert [row[0].text for row in by_layer.rows] == NAMES
    assert [column.title for column in by_layer.columns] == [
        "layer",
        "mse, gradient, 4 bits",
        "mse, gradient, 3 bits",
    ]
    assert [cell.text for cell in by_layer.rows[0][1:]] == ["4, 4", "3, 3"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert list(rows) == [
        "mse, w8a8",
        "mse, w4a4",
        "mse, w3a3",
        "mse, gradient, 4 bits",
        "mse, gradient, 3 bits",
    ]
    assert rows["mse, gradient, 4 bits"] == [
        *("4.00", "4.00", "0.016", "0.4444", "88.50"),
        *("84.00", "+4.50", "84.50", "90 %"),
    ]
    assert all(len(row) == len(table.columns) for row in table.rows)
    (said,) = [line for part in found.parts if isinstance(part, Lines) for line in part.lines]
    assert said == (
        "resnet20 on cifar10, mse, chosen by gradient: above uniform widths of the same size at 2 of 2 budgets; above "
        "18 of 20 random choices within the same budgets (90%)."
    )


def test_a_budget_between_uniform_widths_is_compared_with_the_line_between_them(tmp_path: Path) -> None:
    start, *_ = stages = sweep(tmp_path)
    params = {"of": "mse", "by": "gradient", "size_bits": 3.5, "bops_per_mac": 12.25}
    stages.append(stage("mixed", 4, 0, start, **params))
    finish(tmp_path, stages[-1], 90.0)
    keep(tmp_path, stages[-1], "widths.json", record(4, "gradient") | {"size_mb": 3.5 / 9})
    plan(tmp_path, *stages)
    found = widths.load(tmp_path, results.load(tmp_path, "small").marked)
    assert found is not None
    row = widths.beside(found.points)[-1]
    assert row["uniform"] == "w3a3 to w4a4" and row["uniform_top1"] == pytest.approx(83.5)
    assert widths.won([row | {"random_n": 0, "uniform_top1": float("nan")}]) == []


def test_a_sweep_without_such_runs_has_no_such_section_and_a_torn_record_is_left_out(tmp_path: Path) -> None:
    stages = sweep(tmp_path)
    plan(tmp_path, stages[0], sweep="none")
    assert width_sections.section(results.load(tmp_path, "none")) is None
    keep(tmp_path, stages[2], "widths.json", "{")
    for broken in (
        {"format": 2},
        {"format": 1, "layers": []},
        {"format": 1, "layers": [{"weight_bits": "8"}]},
    ):
        keep(tmp_path, stages[3], "widths.json", broken)
        found = width_sections.section(results.load(tmp_path, "small"))
        assert found is not None and isinstance(found.parts[0], Lines)
        assert len(found.parts[0].lines) == 2


@pytest.mark.parametrize("wrong", [None, "x", [], {"2": "x", "3": 1e40, "-1": 2, "99999": 1}])
def test_scores_that_are_none_are_left_out(tmp_path: Path, wrong: object) -> None:
    content = record(4, "gradient")
    content["layers"][0]["scores"] = {"weight": wrong}
    keep(tmp_path, {"key": "one"}, "widths.json", content)
    (first, *_) = widths.read_widths(tmp_path, "one").layers
    assert first.scores["weight"] == {}
