"""The report shows of quantization-aware trainings what each is worth and how its step sizes moved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from fakes.figures import apart_and_inside, texts
from fakes.runs_folder import begin, finish, plan, stage

from analysis.draw import learned
from analysis.page import learning_section
from analysis.page.parts import Picture, Table
from analysis.read.curves import curve
from analysis.report import results

LAYERS = [f"layer{stage}.{block}.conv{conv}" for stage in (1, 2, 3) for block in (0, 1, 2) for conv in (1, 2)]


def metrics(epoch: int, top1: float, drift: float) -> dict[str, Any]:
    """What an epoch records; the step sizes of weights shrink, those of inputs grow, late layers the most."""
    values: dict[str, float] = {"top1": top1, "loss": 0.3} | ({"train_loss": 1 / epoch} if epoch else {})
    for place, layer in enumerate(LAYERS):
        moved = 1 + drift * place * epoch / 100
        for side, value in (("weight", 0.2 / moved), ("input", 0.1 * moved)):
            values[f"learned_{layer.replace('.', '_')}_{side}_scale"] = value
    return {"event": "metrics", "step": epoch, "values": values}


def trained(runs: Path, what: dict[str, Any], start: float, tops: list[float]) -> dict[str, Any]:
    finish(runs, what, tops[-1], start_top1=start)
    events = [metrics(epoch, top1, 0.3) for epoch, top1 in enumerate([start, *tops])]
    begin(runs, what, *events, {"event": "finished"})
    return what


def sweep(runs: Path) -> None:
    stages = []
    for seed in (0, 1):
        start = stage("float", 32, seed)
        finish(runs, start, 91.7 + seed / 10)
        stages += [start, trained(runs, stage("lsq", 4, seed, start), 86.9, [90.2, 90.9, 91.3 + seed / 10])]
        stages.append(trained(runs, stage("apot", 4, seed, start), 71.5, [88.0, 89.5, 91.1 + seed / 5]))
        stages.append(trained(runs, stage("lsq", 2, seed, start), 41.0, [30.0, 35.0, 38.5 + seed]))
    start = stages[0]
    finish(runs, (other := stage("mse", 4, 0, start)), 90.0)
    plan(runs, *stages, other)


def test_the_table_has_what_calibration_alone_reached_and_what_training_gained(tmp_path: Path) -> None:
    sweep(tmp_path)
    found = learning_section.section(results.load(tmp_path, "small"))
    assert found is not None
    table, picture = found.parts
    assert isinstance(table, Table) and isinstance(picture, Picture)
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows[0] == ["weights 4 bits, activations 4 bits"], "the better of two methods comes first"
    assert rows[1] == ["lsq", "3", "86.90", "91.35", "0.40", "+4.45"]
    assert rows[2] == ["apot", "3", "71.50", "91.20", "0.55", "+19.70"]
    assert rows[3] == ["weights 2 bits, activations 2 bits"] and rows[4][:2] == ["lsq", "3"]
    worse = table.rows[4][-1]
    assert (worse.text, worse.small, worse.tone) == (
        "\N{MINUS SIGN}2.00",
        "worse than calibration alone",
        "bad",
    )
    assert "n\N{NO-BREAK SPACE}2" in table.rows[1][3].small and "(" in table.rows[1][3].small
    shown = {text.get_text() for text in texts(picture.figure)}
    assert {"lsq w4a4, weights", "apot w4a4, inputs", "lsq w2a2, inputs"} <= shown
    lines = found.files["learned.csv"].splitlines()
    assert len(lines) == 1 + 6 * len(LAYERS) * 2 * 4, (
        "six runs, a weight and an input, before and after 3 epochs"
    )


def test_without_trainings_there_is_no_section(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    finish(tmp_path, start, 91.7)
    finish(tmp_path, (other := stage("mse", 4, 0, start)), 90.0)
    plan(tmp_path, start, other)
    assert learning_section.section(results.load(tmp_path, "small")) is None


def test_lines_are_relative_to_the_value_before_training_or_the_first_that_is_known() -> None:
    name = "learned_layer1_0_conv1_weight_scale"
    with_start = curve({0: {name: 0.5}, 1: {name: 0.25, "train_loss": 1.0}})
    without = curve({1: {name: 0.25, "train_loss": 1.0}, 2: {name: 0.5, "train_loss": 1.0}})
    across = curve({0: {name: 0.0}, 1: {name: 0.25, "train_loss": 1.0}})
    assert with_start is not None and without is not None and across is not None
    (line,) = learned.lines(with_start)
    assert (line.layer, line.side, line.parameter) == ("layer1_0_conv1", "weight", "scale")
    assert line.relative.tolist() == [1.0, 0.5]
    relative = learned.lines(without)[0].relative
    assert math.isnan(relative[0]) and relative[1:].tolist() == [1.0, 2.0]
    assert np.isnan(learned.lines(across)[0].relative).all()


def test_the_axis_of_step_sizes_that_hardly_move_is_not_shifted() -> None:
    """matplotlib would write 0.0001 and, over the title, "+1"."""
    name = "learned_conv1_input_scale"
    found = curve({0: {name: 0.5}, 1: {name: 0.50005, "train_loss": 1.0}})
    assert found is not None
    figure = learned.figure({"lsq w4a4": found})
    figure.draw_without_rendering()
    assert {axes.yaxis.get_offset_text().get_text() for axes in figure.axes} == {""}


def test_no_two_texts_of_the_figure_overlap_with_names_as_long_as_those_of_a_sweep() -> None:
    scales = {f"learned_conv1_{side}_scale": 0.5 for side in ("weight", "input")}
    found = curve({epoch: scales | ({"train_loss": 1.0} if epoch else {}) for epoch in range(4)})
    assert found is not None
    name = "lsq, first and last layer weights 8 bits, inputs float, BatchNorm trained w{0}a{0}"
    apart_and_inside(learned.figure({name.format(bits): found for bits in (4, 2)}))
