"""The section of widths by layer stands where such runs are, reads them with care, and compares at equal budgets."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from fakes.answers import DATA, IMAGES, answered, right
from fakes.layer_records import NAMES, keep
from fakes.runs_folder import Json, begin, finish, plan
from fakes.width_sweeps import ran, record, sweep

from analysis.compare import widths
from analysis.page import width_sections
from analysis.page.parts import Lines, Picture, Section, Table
from analysis.read.width_records import read_widths
from analysis.report import results
from analysis.report.wording import MINUS

GOLDEN = """\
**resnet20 on cifar10, mse**

| widths                |        n | bits of a weight | of a layer | BOPs, billions |     MB | top-1 % | \
uniform, same size | its MB | its top-1 % |  gain |           95 % |       p | random, same budget |  best | beaten |
| --------------------- | -------: | ---------------: | ---------: | -------------: | -----: | ------: | \
------------------ | -----: | ----------: | ----: | -------------: | ------: | ------------------: | ----: | -----: |
| uniform, 8 bits       |        1 |             8.00 |       8.00 |          0.064 | 0.8889 |   88.00 | \
                   |        |             |       |                |         |                     |       |        |
| uniform, 4 bits       |        1 |             4.00 |       4.00 |          0.016 | 0.4444 |   84.00 | \
                   |        |             |       |                |         |                     |       |        |
| uniform, 3 bits       |        1 |             3.00 |       3.00 |          0.009 | 0.3333 |   83.00 | \
                   |        |             |       |                |         |                     |       |        |
| by gradient, 4 bits   |        1 |             4.00 |       4.00 |          0.016 | 0.4444 |   88.50 | \
w4a4               | 0.4444 |       84.00 | +4.50 | +3.22 to +5.78 | < 0.001 |          84.50 (10) | 89.00 |   90 % |
| by gradient, 3 bits   |        1 |             3.00 |       3.00 |          0.009 | 0.3333 |   87.50 | \
w3a3               | 0.3333 |       83.00 | +4.50 | +3.22 to +5.78 | < 0.001 |          83.50 (10) | 88.00 |   90 % |
| by gradient, 2.5 bits |        1 |             2.50 |       2.50 |        0.00625 | 0.2778 |   87.00 | \
                   |        |             |       |                |         |          83.00 (10) | 87.50 |   90 % |
| random, 4 bits        | 10 draws |             4.00 |       4.00 |          0.016 | 0.4444 |   84.50 | \
                   |        |             |       |                |         |                     |       |        |
| random, 3 bits        | 10 draws |             3.00 |       3.00 |          0.009 | 0.3333 |   83.50 | \
                   |        |             |       |                |         |                     |       |        |
| random, 2.5 bits      | 10 draws |             2.50 |       2.50 |        0.00625 | 0.2778 |   83.00 | \
                   |        |             |       |                |         |                     |       |        |

- resnet20 on cifar10, mse, chosen by gradient: above uniform widths of the same size at 2 of 2 budgets; of 2 that \
are tested, significantly above at 2 and below at 0; above 27 of 30 random choices within the same budgets (90%).
"""


def section(runs: Path) -> Section:
    found = width_sections.section(results.load(runs, "small"))
    assert found is not None
    return found


def compared(runs: Path) -> dict[str, Json]:
    """The rows of the table by their names."""
    found = widths.load(runs, results.load(runs, "small").marked)
    assert found is not None
    return {row["name"]: row for row in widths.compared(runs, found.points).to_dict("records")}


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


def test_the_markdown_is_this_one(tmp_path: Path) -> None:
    sweep(tmp_path)
    text = section(tmp_path).files["widths.md"]
    assert text.startswith(GOLDEN), text
    layers = text.partition("bits of each layer's weight, input**\n\n")[2].splitlines()
    assert layers[0] == (
        "| layer          | by gradient, 4 bits | by gradient, 3 bits | by gradient, 2.5 bits |"
    )
    assert len(layers) == 2 + len(NAMES)
    assert [cell.strip() for cell in layers[2].split("|")[1:-1]] == ["conv1", "8, 8", "8, 8", "8, 8"]
    assert [cell.strip() for cell in layers[4].split("|")[2:-1]] == ["4, 4", "3, 3", "2, 2"]


def test_the_page_has_the_figures_and_the_same_tables(tmp_path: Path) -> None:
    sweep(tmp_path)
    found = section(tmp_path)
    pictures = [part.name for part in found.parts if isinstance(part, Picture)]
    assert pictures == ["layer-costs", "width-front", "width-gains", "chosen-widths"]
    table, by_layer = [part for part in found.parts if isinstance(part, Table)]
    assert [row[0].text for row in by_layer.rows] == NAMES
    assert all(len(row) == len(one.columns) for one in (table, by_layer) for row in one.rows)
    cells = {row[0].text: [cell.text for cell in row] for row in table.rows}
    for name, row in cells.items():
        (line,) = (line for line in found.files["widths.md"].splitlines() if line.startswith(f"| {name} "))
        assert [cell.strip() for cell in line.split("|")[1:-1]] == row


def test_the_csv_files_have_every_row_layer_and_cost(tmp_path: Path) -> None:
    sweep(tmp_path, scores=("gradient", "hessian"))
    files = section(tmp_path).files
    assert set(files) == {"widths.md", "widths.csv", "chosen-widths.csv", "layer-costs.csv"}
    rows = {row["name"]: row for row in read(files["widths.csv"])}
    assert len(rows) == 3 + 6 + 3
    four = rows["by gradient, 4 bits"]
    assert (four["uniform"], four["n"], four["random_n"]) == ("w4a4", "1", "10")
    assert float(four["gain"]) == pytest.approx(4.5) and float(four["p"]) < float(four["p_holm"]) < 1e-9
    assert rows["by gradient, 2.5 bits"]["weight_bits"] == "2.5"
    layers = read(files["chosen-widths.csv"])
    assert len(layers) == 6 * len(NAMES)
    assert [layers[0][name] for name in ("layer", "weight_bits", "input_bits", "declared")] == [
        *("conv1", "8", "8", "True")
    ]
    costs = read(files["layer-costs.csv"])
    assert len(costs) == 2 * 6 * (len(NAMES) - 1)
    assert {row["score"]: row["unit"] for row in costs} == {
        "gradient": "change of loss, squared (nats²)",
        "hessian": "mean diagonal of H · |error|² (nats)",
    }
    assert {row["diagonal"] for row in costs if row["score"] == "gradient"} == {""}
    assert {(row["diagonal"], row["cost"] == "0.0") for row in costs if row["score"] == "hessian"} == {
        *(("2.0", False), ("-1.0", True))
    }


def test_the_gain_is_paired_over_the_images_and_the_seeds(tmp_path: Path) -> None:
    """Two seeds; of one the choice is as good as uniform, by other images."""
    stages = sweep(tmp_path, seeds=2)
    (own,) = (
        one for one in stages if one["params"].get("by") == "gradient" and one["params"]["size_bits"] == 4
        and one["params"]["seed"] == 1
    )  # fmt: skip
    answered(tmp_path, own, np.arange(IMAGES) < 840)
    row = compared(tmp_path)["by gradient, 4 bits"]
    assert (row["n"], row["top1"], row["uniform_top1"]) == (2, pytest.approx(86.25), pytest.approx(84.0))
    assert row["gain"] == pytest.approx(2.25) and row["low"] < 2.25 < row["high"]
    assert compared(tmp_path)["by gradient, 3 bits"]["high"] - 4.5 < row["high"] - 2.25


def test_where_rounding_is_learned_it_is_said_what_chose_its_settings(tmp_path: Path) -> None:
    start, *_ = stages = sweep(tmp_path)
    assert "were chosen on" not in section(tmp_path).files["widths.md"]
    stages.append(ran(tmp_path, start, 4, "gradient", of="best iterations 100"))
    plan(tmp_path, *stages)
    assert "The settings of best were chosen on 2,000 training images" in section(tmp_path).files["widths.md"]


def test_worse_widths_are_counted_as_worse(tmp_path: Path) -> None:
    sweep(tmp_path, scores=("hessian",))
    rows = compared(tmp_path)
    assert rows["by hessian, 3 bits"]["gain"] == pytest.approx(-1.0)
    text = section(tmp_path).files["widths.md"]
    assert f"{MINUS}1.00 | {MINUS}1.62 to {MINUS}0.38 | 0.004" in text
    assert "at 0 of 2 budgets; of 2 that are tested, significantly above at 0 and below at 2;" in text


def test_what_cannot_be_paired_has_a_gain_and_no_p(tmp_path: Path) -> None:
    """Other test data, and results without images."""
    stages = sweep(tmp_path)
    four, three = (
        one for one in stages if one["params"].get("by") == "gradient" and one["params"]["size_bits"] > 2.5
    )
    answered(tmp_path, four, right(885), DATA | {"sha256": "f" * 64})
    begin(tmp_path, three, DATA)
    finish(tmp_path, three, 87.5, images=IMAGES)
    rows = compared(tmp_path)
    for name in ("by gradient, 4 bits", "by gradient, 3 bits"):
        assert rows[name]["gain"] == pytest.approx(4.5) and rows[name]["p"] != rows[name]["p"], name


def test_a_budget_between_uniform_widths_is_compared_with_the_line_between_them(tmp_path: Path) -> None:
    start, *_ = stages = sweep(tmp_path)
    stages.append(ran(tmp_path, start, 3.5, "gradient"))
    plan(tmp_path, *stages)
    row = compared(tmp_path)["by gradient, 3.5 bits"]
    assert row["uniform"] == "w3a3 to w4a4" and row["uniform_top1"] == pytest.approx(83.5)
    assert row["gain"] == pytest.approx(4.5) and row["p"] != row["p"]


def test_a_budget_of_time_is_named_by_it_and_has_no_uniform_widths_of_its_own(tmp_path: Path) -> None:
    start, *_ = stages = sweep(tmp_path)
    stages.append(ran(tmp_path, start, 4, "gradient", size_bits=0.0, bops_per_mac=0.0, latency_ms=1.2))
    plan(tmp_path, *stages)
    row = compared(tmp_path)["by gradient, 1.2 ms"]
    assert row["random_n"] == 0 and row["p"] != row["p"] and row["uniform"] == "w4a4 to w8a8"


def test_uniform_widths_alone_make_no_files(tmp_path: Path) -> None:
    start, *rest = sweep(tmp_path)
    uniform = [one for one in rest if one["params"]["by"] == "uniform"]
    plan(tmp_path, start, *uniform)
    found = section(tmp_path)
    assert not found.files and [part.name for part in found.parts if isinstance(part, Picture)] == [
        "width-front"
    ]


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
        found = section(tmp_path)
        assert isinstance(found.parts[0], Lines) and len(found.parts[0].lines) == 2
        assert found.files["widths.md"].count("Left out: ") == 2


@pytest.mark.parametrize("wrong", [None, "x", [], {"2": "x", "3": 1e40, "-1": 2, "99999": 1}])
def test_scores_and_traces_that_are_none_are_left_out(tmp_path: Path, wrong: object) -> None:
    content = record(4, "hessian")
    content["layers"][1] |= {"scores": {"weight": wrong}, "hessian": {"weight": wrong}}
    keep(tmp_path, {"key": "one"}, "widths.json", content)
    _, layer, *_ = read_widths(tmp_path, "one").layers
    assert layer.scores["weight"] == {} and all(one != one for one in layer.traces["weight"])
