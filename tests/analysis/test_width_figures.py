"""The figures of widths by layer: nothing lies over another thing, and what is drawn can be told apart."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fakes.figures import apart_and_inside
from fakes.layer_records import NAMES
from fakes.runs_folder import plan
from fakes.width_sweeps import ran, sweep
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis.compare import layer_widths, widths
from analysis.compare.widths import Widths
from analysis.draw import layer_costs, width_gains
from analysis.draw import widths as drawn
from analysis.draw.layer_costs import LayerBars, Row
from analysis.page import html
from analysis.report import results
from analysis.report.wording import MINUS
from suite.record.method_colours import CHOSEN

SCORES = ("gradient", "hessian")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Widths:
    """Two scores at three budgets."""
    runs = tmp_path_factory.mktemp("runs")
    sweep(runs, scores=SCORES)
    return loaded(runs)


def loaded(runs: Path) -> Widths:
    read = widths.load(runs, results.load(runs, "small").marked)
    assert read is not None
    return read


def legend(figure: Figure) -> dict[str, object]:
    every = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return {
        text.get_text(): handle
        for one in every
        for text, handle in zip(one.get_texts(), one.legend_handles, strict=True)
    }


def test_costs_of_layers_share_an_axis_and_say_their_unit(found: Widths) -> None:
    figure = layer_costs.of_scores(layer_widths.scored(found.points, found.records))
    texts = apart_and_inside(figure)
    assert len(figure.axes) == 2 * len(SCORES)
    assert all(texts.count(name) == 2 for name in NAMES), "once below the weights, once below the inputs"
    assert texts.count("resnet20 on cifar10, mse") == 1
    units = [axes.get_ylabel().replace("\n", " ") for axes in figure.axes[::2]]
    assert units == [layer_widths.UNITS[score] for score in SCORES]
    assert texts.count("8 bits declared") == 4
    limits = [axes.get_ylim() for axes in figure.axes]
    assert limits[::2] == limits[1::2], "weights and inputs can be compared"
    assert list(legend(figure)) == [
        *("2 bits", "3 bits", "4 bits", "8 bits", "± one standard error", "not above zero")
    ]


def test_the_error_of_a_trace_is_drawn_on_its_bars_and_what_may_be_chance_is_pale(found: Widths) -> None:
    """The trace is 2 ± 1: the lines go from half the cost to one and a half. A negative one that costs nothing has no
    bar, and one below its standard error, which counts as that, a pale one."""
    scored = layer_widths.scored(found.points, found.records)
    axes = layer_costs.of_scores(scored).axes[2]
    errors = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2]
    zeros = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(errors) == 4 * (len(NAMES) - 2) and len(zeros) == 4
    low, high = errors[0]
    assert high / low == pytest.approx(3) and high == pytest.approx(1.5 * 2.0**-2)
    assert {round(line.get_xdata()[0]) for line in zeros} == {2}
    assert not layer_costs.of_scores(scored).axes[0].lines, "the gradient's score has no standard error"

    bars = {"weight": {2: 0.1, 4: 0.01}}
    rows = [LayerBars(str(error), bars, {"weight": error}) for error in (0.5, 3.0, math.inf, math.nan)]
    figure = layer_costs.bars([Row("chance", rows, "nats")])
    opaque = [patch.get_facecolor()[3] for patch in figure.axes[0].patches]
    assert opaque == [1, 0.4, 0.4, 1] * 2 and len(figure.axes[0].lines) == 2
    assert "below its standard error" in apart_and_inside(figure)


def test_many_layers_stand_below_each_other_and_names_that_differ_at_each_row() -> None:
    def row(title: str, names: list[str]) -> Row:
        bars = [LayerBars(name, {"weight": {2: 0.1}, "input": {2: 0.01}}) for name in names]
        return Row(title, bars, "rise of loss (nats)")

    many = [f"layer{place}.conv" for place in range(54)]
    tall = layer_costs.bars([row("a network", many)])
    assert len({axes.get_position().x0 for axes in tall.axes}) == 1 and len(tall.axes) == 2
    assert apart_and_inside(tall).count(many[0]) == 1
    two = layer_costs.bars([row("a network", NAMES), row("another", [f"b{name}" for name in NAMES])])
    texts = apart_and_inside(two)
    assert texts.count("conv1") == texts.count("bconv1") == 2


def test_the_front_shows_drops_that_can_be_told_apart(found: Widths) -> None:
    figure = drawn.front(found.points)
    texts = apart_and_inside(figure)
    assert all(texts.count(name) == 2 for name in ("w3a3", "w4a4", "w8a8")), "in both panels"
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log"]
    handles = legend(figure)
    assert list(handles) == ["uniform", *(f"chosen by {score}" for score in SCORES), "random"]
    styles = [(to_hex(line.get_color()), line.get_marker()) for line in handles.values()]  # type: ignore[attr-defined]
    assert len({colour for colour, _ in styles}) == len({marker for _, marker in styles}) == len(styles)
    joined = {name: line.get_linestyle() for name, line in handles.items()}  # type: ignore[attr-defined]
    assert [name for name, dash in joined.items() if dash == "None"] == ["random"]
    uniform = max(figure.axes[0].lines, key=lambda line: line.get_zorder())
    assert uniform.get_label() == "uniform", "on top of what was chosen"


def test_gains_have_their_interval_and_a_scale_for_each_budget(tmp_path: Path) -> None:
    start, *_ = stages = sweep(tmp_path, scores=SCORES)
    stages += [ran(tmp_path, start, bits, "uniform") for bits in (2,)]
    plan(tmp_path, *stages)
    found = loaded(tmp_path)
    figure = width_gains.figure(widths.compared(tmp_path, found.points))
    assert figure is not None
    texts = apart_and_inside(figure)
    assert [axes.get_title() or axes.get_title("left") for axes in figure.axes] == [
        *("4 bits, above w4a4 (84.00 %)", "3 bits, above w3a3 (83.00 %)", "2.5 bits, above w2a2 to w3a3")
    ]
    assert texts.count("by gradient") == texts.count("by hessian") == 1, "left of all panels"
    assert texts.count("+4.50") == 3 and texts.count(f"{MINUS}1.00") == 3
    intervals = [[line for line in axes.lines if line.get_marker() == "None"] for axes in figure.axes]
    assert [len(lines) for lines in intervals] == [3, 3, 1], (
        "two scores and the line at zero; none between widths"
    )
    low, high = intervals[0][0].get_xdata()
    assert low == pytest.approx(3.215, abs=0.01) and high == pytest.approx(5.785, abs=0.01)
    assert len({axes.get_xlim() for axes in figure.axes}) > 1


def test_without_uniform_widths_there_is_no_figure_of_gains(tmp_path: Path) -> None:
    start, *stages = sweep(tmp_path)
    plan(tmp_path, start, *(one for one in stages if one["params"]["by"] != "uniform"))
    assert width_gains.figure(widths.compared(tmp_path, loaded(tmp_path).points)) is None


def test_each_score_has_a_colour_and_a_marker_of_its_own_that_the_page_knows() -> None:
    colours, markers = zip(*drawn.STYLES.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(drawn.STYLES) == len(layer_widths.UNITS)
    assert set(colours) <= {colour for colour, _ in CHOSEN.values()}
    assert {*html.FOLLOW} & set(colours) == set()


def test_names_of_uniform_widths_of_almost_one_size_are_not_written_over_each_other(tmp_path: Path) -> None:
    start, *_ = stages = sweep(tmp_path)
    stages.append(ran(tmp_path, start, 4.1, "uniform"))
    plan(tmp_path, *stages)
    texts = apart_and_inside(drawn.front(loaded(tmp_path).points))
    assert texts.count("w8a8") == 2 and texts.count("w4a4") + texts.count("w5a5") == 2


def test_the_chosen_widths_have_their_top1_beside_them_and_name_the_method_once(found: Widths) -> None:
    figure = drawn.along(found.points, found.records)
    texts = apart_and_inside(figure)
    assert texts.count("88.50 %") == texts.count("by gradient, 4 bits") == 2, "weights and inputs"
    assert all(texts.count(name) == 1 for name in NAMES), "below the inputs alone"
    assert [text for text in texts if "mse" in text] == [
        *("resnet20 on cifar10, mse: weights", "resnet20 on cifar10, mse: inputs")
    ]


def test_two_methods_have_rows_of_their_own(tmp_path: Path) -> None:
    start, *_ = stages = sweep(tmp_path)
    stages += [ran(tmp_path, start, bits, by, of="best") for bits, by in ((4, "uniform"), (4, "gradient"))]
    plan(tmp_path, *stages)
    both = loaded(tmp_path)
    assert len(drawn.front(both.points).axes) == 4
    along = apart_and_inside(drawn.along(both.points, both.records))
    assert "resnet20 on cifar10, best: inputs" in along
    costs = apart_and_inside(layer_costs.of_scores(layer_widths.scored(both.points, both.records)))
    assert "resnet20 on cifar10, best, by gradient: weights" in costs
