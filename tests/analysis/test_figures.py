"""The figures: readable at twenty methods, the same colour everywhere, holes and failures shown as such."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from fakes.figures import overlapping, texts, twenty
from fakes.runs_folder import finish, plan, stage
from fakes.sweeps import small
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.draw import accuracy, best_lines, drop, style
from analysis.draw.axes import LEAST, drops
from analysis.draw.style import RC, line_styles, style_of
from analysis.report import results, tables
from suite.methods import find as find_methods
from suite.record.method_colours import CHOSEN


def analysed(runs: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    found = results.load(runs, "small")
    return found.marked, found.summary, found.comparison


def test_no_two_texts_of_a_figure_overlap_at_twenty_methods(tmp_path: Path) -> None:
    twenty(tmp_path)
    marked, summary, comparison = analysed(tmp_path)
    for figure in (accuracy.figure(summary, comparison), drop.figure(marked, summary, comparison)):
        found = texts(figure)
        # An annotation's own extent holds its line, too.
        boxes = [Text.get_window_extent(text) for text in found]
        assert len(found) >= 24
        assert [(found[a].get_text(), found[b].get_text()) for a, b in overlapping(boxes)] == []
        width, height = figure.get_size_inches() * figure.dpi
        for text, box in zip(found, boxes, strict=True):
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()


def test_a_method_has_one_colour_in_both_figures_whatever_else_is_in_the_sweep(tmp_path: Path) -> None:
    twenty(tmp_path)
    marked, summary, comparison = analysed(tmp_path)
    alone = summary[summary["method"].isin(["amax", "method_05"])]
    for method in ("amax", "method_05"):
        for drawn in (
            accuracy.figure(alone[alone["method"] == method], comparison).axes[0],
            drop.figure(marked, alone[alone["method"] == method], comparison).axes[0],
        ):
            markers = {
                to_hex(line.get_color())
                for line in drawn.lines
                if line.get_marker() == style_of(method).marker
            }
            assert markers == {to_hex(style_of(method).colour)}


def test_every_method_of_the_suite_has_a_colour_and_a_marker_of_its_own() -> None:
    names = {*find_methods(), "float", *CHOSEN}
    assert len({(style_of(name).colour, style_of(name).marker) for name in names}) == len(names)


def test_no_two_lines_share_colour_dash_and_marker() -> None:
    methods = [*CHOSEN, *(f"own_{number}" for number in range(30))]
    lines = [(method, f"{method}, variant {number}") for method in methods for number in range(8)]
    looks = {tuple(map(str, style.values())) for style in line_styles(lines).values()}
    assert len(looks) == len(lines)


def test_published_values_are_drawn_hollow_at_the_width_they_are_stored_at(tmp_path: Path) -> None:
    small(tmp_path)
    _, summary, comparison = analysed(tmp_path)
    panels = [
        axes
        for axes in accuracy.figure(summary, comparison).axes
        if axes.get_title(loc="left").split() == ["Post-Training", "Quantization", "(003)"]
    ]
    lines = [line for axes in panels for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert sorted(float(y) for line in lines for y in line.get_ydata()) == [83.99, 90.26]
    widths = [tick.get_text() for tick in panels[0].get_xticklabels()]
    assert {widths[int(x)] for line in lines for x in line.get_xdata()} == {"5", "9"}


def test_weights_alone_have_a_panel_of_their_own_and_lines_are_named_at_their_ends(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    stages = [stage(method, bits, 0, start) for method in ("amax", "mse") for bits in (8, 4)]
    alone = stage("lsq", 4, 0, start, act_bits=32)
    plan(tmp_path, start, *stages, alone)
    for one, top1 in zip((start, *stages, alone), (91.0, 90.9, 80.0, 90.8, 70.0, 85.0), strict=True):
        finish(tmp_path, one, top1)
    marked, summary, comparison = analysed(tmp_path)
    both, weights = accuracy.figure(summary, comparison).axes
    assert both.get_title(loc="left").endswith("weights and activations")
    assert weights.get_title(loc="left").endswith("weights alone")
    assert [text.get_text() for text in both.texts] == [
        "mse",
        "amax",
    ]  # from the bottom up: mse drops by more
    assert [text.get_text() for text in weights.texts] == ["lsq"]
    legends = drop.figure(marked, summary, comparison).legends
    assert not accuracy.shows_published(summary, comparison)
    assert "published" not in "".join(text.get_text() for legend in legends for text in legend.get_texts())


def test_a_panel_shows_the_best_lines_of_many(tmp_path: Path) -> None:
    twenty(tmp_path)
    _, summary, comparison = analysed(tmp_path)
    axes = accuracy.figure(summary, comparison).axes[0]
    assert len(axes.texts) == best_lines.MOST and "the best 8 of" in axes.get_title(loc="left")


def test_the_users_matplotlib_settings_do_not_reach_a_figure() -> None:
    assert RC["text.usetex"] is False and RC["font.family"] == ["sans-serif"]
    assert not any(name.startswith("backend") for name in RC)


def test_a_hole_keeps_its_row_in_the_figure_of_drops(tmp_path: Path) -> None:
    small(tmp_path)
    marked, summary, comparison = analysed(tmp_path)
    labels = [text.get_text() for text in drop.figure(marked, summary, comparison).axes[0].get_yticklabels()]
    assert labels == ["k_sigma  w9", "k_sigma  w5", "a|b  w4a4 (not run)", "qat_asymmetric  w8a8 (failed)"]


def test_a_failure_at_chance_leaves_room_for_a_difference_of_a_point() -> None:
    axes = Figure().subplots()
    drops(axes, [80.0, 1.5, 0.5, -0.3], "y")
    (_, worse), (_, better), (_, bottom), (_, end) = axes.transAxes.inverted().transform(
        axes.transData.transform([(0, 1.5), (0, 0.5), (0, 80.0), (0, LEAST)])
    )
    assert better - worse > 0.08 and bottom > 0 and end < 1
    assert axes.yaxis.get_major_formatter()(LEAST) == "\N{LESS-THAN OR EQUAL TO} 0.1"


def test_figures_of_a_sweep_that_has_not_run_are_drawn(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    plan(tmp_path, start, stage("amax", 8, 0, start))
    marked, summary, comparison = analysed(tmp_path)
    for figure in (accuracy.figure(summary, comparison), drop.figure(marked, summary, comparison)):
        assert len(texts(figure)) >= 3


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    small(tmp_path)
    written = []
    for _ in range(2):
        marked, summary, comparison = analysed(tmp_path)
        paths = style.save(accuracy.figure(summary, comparison), tmp_path / "accuracy")
        paths += style.save(drop.figure(marked, summary, comparison), tmp_path / "drop")
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
    assert [axes.get_title(loc="left") for axes in drop.figure(marked, summary, comparison).axes] == titles
    named = [axes.get_title(loc="left") for axes in accuracy.figure(summary, comparison).axes]
    assert named == [f"{title}: weights and activations" for title in titles]
    assert [section.title for section in tables.sections(tables.joined(summary, comparison))] == titles
