"""The figure of cost: numbers lie over nothing, no defect defines the front, and few points are bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import ROOT
from fakes.figures import apart_and_inside, overlapping, texts, twenty
from matplotlib.axes import Axes
from matplotlib.cbook import pts_to_poststep
from matplotlib.path import Path as Line
from matplotlib.text import Annotation, Text

from analysis.compare.configurations import point
from analysis.compare.pareto import LATENCY, SIZE, front, sound_front
from analysis.compare.roles import are_sound
from analysis.draw import cost, cost_bars
from analysis.report import results

WIDTHS = (cost.WIDE, 3.5)


def summaries(runs: Path) -> dict[str, pd.DataFrame]:
    """Twenty methods, and the sweep whose figure is committed."""
    twenty(runs)
    table = str(ROOT / "results" / "cifar10" / "runs.csv")
    return {
        "twenty": results.load(runs, "small").summary,
        "cifar10": results.load(runs, "cifar10", table).summary,
    }


def lines(axes: Axes) -> list[Line]:
    """The front and the intervals that are drawn, in pixels."""
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    data = [Line(np.transpose(pts_to_poststep(line.get_xdata(), line.get_ydata()))) for line in steps]
    for container in axes.containers:
        data += [Line(segment) for bars in container.lines[2] for segment in bars.get_segments()]
    paths = [path.transformed(axes.transData) for path in data]
    return [path for path in paths if len(path.vertices) and np.ptp(path.vertices, axis=0).max() > 0]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_of_a_point_lies_over_the_front_an_interval_or_another_number(
    tmp_path: Path, width: float
) -> None:
    for name, summary in summaries(tmp_path).items():
        figure = cost.figure(summary, SIZE, width)
        found = [text for text in texts(figure) if isinstance(text, Annotation)]
        boxes = [Text.get_window_extent(text) for text in found]
        (axes,) = figure.axes
        assert len(lines(axes)) > 10, "what a name could lie over"
        over = [
            text.get_text()
            for text, box in zip(found, boxes, strict=True)
            if any(path.intersects_bbox(box, filled=False) for path in lines(axes))
        ]
        assert len(found) >= 4 and over == [] and overlapping(boxes) == [], name


def test_each_point_of_the_front_is_named_by_its_number(tmp_path: Path) -> None:
    summary = summaries(tmp_path)["cifar10"]
    other = summary.assign(model="other")
    figure = cost.figure(pd.concat([summary, other]), SIZE)
    (legend,) = figure.legends
    words = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    best = [point(row) for row in sound_front(summary, SIZE).to_dict("records")]
    assert words[-2 * len(best) :] == [f"{number} {name}" for number, name in enumerate(best * 2, 1)]
    assert len(best) >= 4
    for first, axes in enumerate(figure.axes):
        numbers = {text.get_text() for text in axes.texts}
        assert numbers == {str(first * len(best) + place + 1) for place in range(len(best))}


def test_what_a_source_got_by_a_defect_is_not_on_the_front_and_is_hollow(tmp_path: Path) -> None:
    summary = summaries(tmp_path)["cifar10"]
    summary = summary[~summary["method"].isin(["best", "adaround"])]  # better than any defect
    best = sound_front(summary, SIZE)
    assert are_sound(best).all() and not are_sound(front(summary, SIZE)).all()
    (axes,) = cost.figure(summary, SIZE).axes
    markers = [container.lines[0] for container in axes.containers]
    hollow = [marker.get_markerfacecolor() == "none" for marker in markers]
    known = summary[summary[SIZE].notna() & (summary["drop"].notna() | (summary["method"] == "float"))]
    assert hollow == [not sound for sound in are_sound(known)] and any(hollow) and not all(hollow)


def test_where_no_quantized_configuration_is_sound_all_are_compared(tmp_path: Path) -> None:
    summary = summaries(tmp_path)["cifar10"]
    defects = summary[~are_sound(summary) | (summary["method"] == "float")]
    assert list(sound_front(defects, SIZE).index) == list(front(defects, SIZE).index)
    assert sound_front(summary[:0], SIZE).empty


def test_the_legend_says_what_pale_and_hollow_points_are(tmp_path: Path) -> None:
    for name, summary in summaries(tmp_path).items():
        (legend,) = cost.figure(summary, SIZE).legends
        words = [text.get_text() for text in legend.get_texts()]
        assert "not on the front" in words and "with a source's defect" in words, name


def few(rows: int, panels: int = 2) -> pd.DataFrame:
    """Points of exported networks: of a few names, in panels of a long name."""
    found = {"model": "resnet20", "dataset": "cifar10", "configuration": "{}", "act_bits": 8, "n": 1}
    found |= {"top1": 92.6, "drop": -0.2, "drop_low": -0.9, "drop_high": 0.5}
    names = [
        ("float", 32),
        ("mse", 8),
        ("linear, rounded, mapped back, float input, weights alone", 8),
        ("amax", 4),
    ]
    return pd.DataFrame(
        [
            found | {"label": label, "method": label.split(",")[0], "weight_bits": bits, LATENCY: 1.2 - place / 10}
            | {"panel": f"ONNX Runtime, batch {panel}, 1 thread, processor time, Intel(R) Xeon(R) Processor"}
            | ({"drop": 0.0, "drop_low": np.nan, "drop_high": np.nan} if label == "float" else {})
            for panel in range(panels)
            for place, (label, bits) in enumerate(names[:rows])
        ]
    )  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_every_text_of_a_panel_of_few_points_is_inside_and_none_is_over_another(
    width: float, rows: int
) -> None:
    """Names of two points ran together, and a title left its panel."""
    figure = cost.figure(few(rows), LATENCY, width)
    words = apart_and_inside(figure)
    bars = [len(axes.patches) for axes in figure.axes]
    assert bars == ([rows] * 2 if rows <= cost_bars.FEW else [0] * 2)
    assert bool(figure.legends) == (rows > cost_bars.FEW)
    if rows == 2 and width == cost.WIDE:
        minus = "\N{MINUS SIGN}"
        assert f"1.1 ms, top-1 92.60 %, drop {minus}0.20 ({minus}0.90 to 0.50)" in words
        assert "1.2 ms, top-1 92.60 %" in words and "mse w8a8" in words
