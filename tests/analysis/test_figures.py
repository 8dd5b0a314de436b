"""The figures: readable at twenty methods, the same colour everywhere, holes and failures shown as such."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
from fakes.figures import texts, twenty
from fakes.runs_folder import finish, plan, stage
from fakes.sweeps import small
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis.draw import accuracy, style
from analysis.draw.axes import percents
from analysis.draw.style import STYLES, style_of
from analysis.read import published
from analysis.report import results, tables


def analysed(runs: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    found = results.load(runs, "small")
    return found.marked, found.summary, found.comparison


def test_no_two_texts_of_a_figure_overlap_at_twenty_methods(tmp_path: Path) -> None:
    twenty(tmp_path)
    marked, summary, comparison = analysed(tmp_path)
    for figure in (accuracy.accuracy(summary, comparison), accuracy.drop(marked, summary, comparison)):
        found = texts(figure)
        boxes = [text.get_window_extent() for text in found]
        assert len(found) > 30
        for (one, box), (two, other) in itertools.combinations(zip(found, boxes, strict=True), 2):
            assert not box.overlaps(other), (one.get_text(), two.get_text())
        width, height = figure.get_size_inches() * figure.dpi
        for text, box in zip(found, boxes, strict=True):
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()


def test_a_method_has_one_colour_in_both_figures_whatever_else_is_in_the_sweep(tmp_path: Path) -> None:
    twenty(tmp_path)
    marked, summary, comparison = analysed(tmp_path)
    alone = summary[summary["method"].isin(["amax", "method_05"])]
    for method in ("amax", "method_05"):
        colour = to_hex(style_of(method).colour)
        legends = [
            {str(handle.get_label()): to_hex(handle.get_color()) for handle in figure.legends[0].get_lines()}
            for figure in (accuracy.accuracy(summary, comparison), accuracy.accuracy(alone, comparison))
        ]
        assert [legend[method] for legend in legends] == [colour, colour]
        drawn = accuracy.drop(marked, alone[alone["method"] == method], comparison).axes[0]
        markers = {
            to_hex(line.get_color()) for line in drawn.lines if line.get_marker() == style_of(method).marker
        }
        assert markers == {colour}


def test_colours_and_markers_of_known_methods_are_all_different() -> None:
    assert set(published.load().methods) | {"float"} == set(STYLES)
    assert len({style.colour for style in STYLES.values()}) == len(STYLES)


def test_published_values_are_drawn_hollow_only_for_the_published_model_and_data(tmp_path: Path) -> None:
    small(tmp_path)
    _, summary, comparison = analysed(tmp_path)
    lines = accuracy.accuracy(summary, comparison).axes[0].lines
    hollow = [float(y) for line in lines if line.get_markerfacecolor() == "none" for y in line.get_ydata()]
    assert sorted(hollow) == [83.99, 90.26]


def test_a_hole_keeps_its_row_in_the_figure_of_drops(tmp_path: Path) -> None:
    small(tmp_path)
    marked, summary, comparison = analysed(tmp_path)
    labels = [
        text.get_text() for text in accuracy.drop(marked, summary, comparison).axes[0].get_yticklabels()
    ]
    assert labels == ["k_sigma  w9", "k_sigma  w5", "a|b  w4a4 (not run)", "qat_asymmetric  w8a8 (failed)"]


def test_a_failure_at_chance_leaves_room_for_a_difference_of_a_point(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.subplots()
    percents(axes, [10.0, 90.5, 91.5])
    (_, low), (_, high), (_, bottom), (_, top) = axes.transAxes.inverted().transform(
        axes.transData.transform([(0, 90.5), (0, 91.5), (0, 10.0), (0, axes.get_ylim()[1])])
    )
    assert high - low > 0.08 and bottom > 0 and top <= 1 + 1e-9


def test_figures_of_a_sweep_that_has_not_run_are_drawn(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    plan(tmp_path, start, stage("amax", 8, 0, start))
    marked, summary, comparison = analysed(tmp_path)
    for figure in (accuracy.accuracy(summary, comparison), accuracy.drop(marked, summary, comparison)):
        assert len(texts(figure)) > 3


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    small(tmp_path)
    written = []
    for _ in range(2):
        marked, summary, comparison = analysed(tmp_path)
        paths = style.save(accuracy.accuracy(summary, comparison), tmp_path / "accuracy")
        paths += style.save(accuracy.drop(marked, summary, comparison), tmp_path / "drop")
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1] and len(written[0]) == 4


def test_each_model_has_its_own_panel_and_its_own_section(tmp_path: Path) -> None:
    stages = [
        stage(method, bits, 0, model=model)
        for model in ("b", "a")
        for method, bits in (("float", 32), ("amax", 8))
    ]
    plan(tmp_path, *stages)
    for one in stages:
        finish(tmp_path, one, 90.0)
    marked, summary, comparison = analysed(tmp_path)
    titles = ["a on cifar10", "b on cifar10"]
    for figure in (accuracy.accuracy(summary, comparison), accuracy.drop(marked, summary, comparison)):
        assert [axes.get_title(loc="left") for axes in figure.axes] == titles
    assert [section.title for section in tables.sections(tables.joined(summary, comparison))] == titles
