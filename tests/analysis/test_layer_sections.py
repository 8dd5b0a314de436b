"""What lies below the accuracy is read with care, chosen by a rule, drawn to be read and listed in tables."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.figures import apart_and_inside
from fakes.layer_records import NAMES, keep, layer, record
from fakes.pages import HOSTILE, Elements, words, written
from fakes.runs_folder import Json, finish, plan, spoil, stage

from analysis.__main__ import main
from analysis.compare import layers as compared
from analysis.draw import confusion, layers
from analysis.page import html, layer_sections
from analysis.page.parts import Picture
from analysis.read import layer_records
from analysis.report import results


def sweep(runs: Path, names: list[str] = NAMES, methods: int = 20, seeds: int = 2) -> list[Json]:
    """Twenty methods at 8 and 4 bits, two seeds, all recorded."""
    stages = []
    for seed in range(seeds):
        start = stage("float", 32, seed)
        finish(runs, start, 92.0)
        record(runs, start)
        stages.append(start)
        for index, bits in itertools.product(range(methods), (8, 4)):
            stages.append(stage(f"method_{index:02}_of_a_long_name", bits, seed, start))
            finish(runs, stages[-1], 92.0 - index * 4 * (bits == 4))
            record(runs, stages[-1], 5 * bits - index / 2, wrong=4 * index, names=names)
    plan(runs, *stages)
    return stages


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of that sweep."""
    runs = tmp_path_factory.mktemp("twenty")
    sweep(runs)
    return runs


@pytest.fixture(scope="module")
def evidence(twenty: Path) -> Any:
    return results.load(twenty, "small").evidence


def test_no_two_texts_of_a_figure_overlap_at_twenty_methods(evidence: Any) -> None:
    assert len(apart_and_inside(layers.heat_map(evidence.shown, evidence.layers))) > 14 * 30
    assert len(apart_and_inside(layers.histograms(evidence.shown, evidence.layers))) > 40
    assert len(apart_and_inside(confusion.figure(evidence.confusions))) > 60


def test_no_two_texts_of_the_heat_map_overlap_at_fifty_four_layers(tmp_path: Path) -> None:
    sweep(tmp_path, [f"layer{n}.{n % 6}.downsample.0" for n in range(54)], seeds=1)
    found = results.load(tmp_path, "small").evidence
    assert len(apart_and_inside(layers.heat_map(found.shown, found.layers))) > 54 + 20


def test_a_method_is_shown_at_its_width_nearest_to_four_bits_and_at_no_more_than_fit(
    evidence: Any, tmp_path: Path
) -> None:
    shown = evidence.shown
    assert len(shown) == 20 and set(shown["weight_bits"]) == {4} and shown["label"].is_unique
    sweep(tmp_path / "few", methods=10, seeds=1)
    shown = results.load(tmp_path / "few", "small").evidence.shown
    assert len(shown) == 20 and shown["weight_bits"].tolist() == [8, 4] * 10
    sweep(tmp_path / "more", methods=30, seeds=1)
    assert len(results.load(tmp_path / "more", "small").evidence.shown) == compared.MOST


def test_only_what_is_shown_is_read(twenty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = layer_records.json_object
    monkeypatch.setattr(
        layer_records, "json_object", lambda path: (read.append(path.name), original(path))[1]
    )
    results.load(twenty, "small")
    assert read.count("layers.json") == 20 and read.count("confusion.json") == 2


def test_the_most_damaged_that_keeps_half_of_floats_top_1_is_shown_beside_it(evidence: Any) -> None:
    (one,) = evidence.confusions
    assert (
        one.name == "method_11_of_a_long_name w4a4" and one.top1 == 48.0
    )  # the next has 44, less than half of 92
    assert one.damaged is not None and one.classes[3] == "cat"
    assert one.baseline.diagonal().tolist() == [98] * 10 and (one.damaged - one.baseline).sum() == 0
    assert (one.damaged - one.baseline)[3, 2] == 42


def test_the_figures_draw_the_numbers_and_the_ranges_in_the_methods_colour(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    amax = stage("amax", 4, 0, start)
    plan(tmp_path, start, amax)
    for one in (start, amax):
        finish(tmp_path, one, 90.0)
        record(tmp_path, one)
    found = results.load(tmp_path, "small").evidence
    cells = [text.get_text() for text in layers.heat_map(found.shown, found.layers).axes[0].texts]
    assert cells == [f"{20 - index / 10:.0f}" for index in range(14)]
    panel = layers.histograms(found.shown, found.layers).axes[0]
    lines = {line.get_xdata()[0]: line.get_color() for line in panel.lines}  # type: ignore[index]
    assert set(lines) == {-1.0, -0.5, 0.5, 1.0} and set(lines.values()) == {"#E69F00"}
    assert [text.get_text() for text in confusion.figure(found.confusions).axes[0].texts].count("98.0") == 10
    assert layers.selected(found.layers) == ["conv1", "layer3.1.conv2", "linear"]


def test_a_legend_says_what_the_lines_of_a_histogram_are(evidence: Any) -> None:
    (legend,) = layers.histograms(evidence.shown, evidence.layers).legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == [
        "values before rounding", "ends of the range", "ends of the range of the narrowest channel"
    ]  # fmt: skip
    outer = evidence.layers.assign(low_inner=evidence.layers["low"], high_inner=evidence.layers["high"])
    (legend,) = layers.histograms(evidence.shown, outer).legends
    assert len(legend.get_texts()) == 2, "no dashed line is drawn"


def test_a_confusion_has_numbers_of_the_unit_of_its_colours() -> None:
    counts = np.array([[30, 10], [0, 400]])
    one = compared.Confusion("a on b", ("x", "y"), counts, counts - np.array([[3, -3], [-4, 4]]), "amax w4a4")
    left, right, *bars = confusion.figure([one]).axes
    assert [text.get_text() for text in left.texts] == ["75.0", "25.0", "100.0"]
    minus = "\N{MINUS SIGN}"
    assert [text.get_text() for text in right.texts] == [f"{minus}7.5", "7.5", "1.0", f"{minus}1.0"]
    assert [bar.get_ylabel() for bar in bars] == [
        "% of the images of the true class", "change (% of the images of the true class)"
    ]  # fmt: skip


HUGE = {
    "name": "x" * 10_000,
    "weight": {"sqnr_db": 10**400, "range": {"low": [1], "high": "x"}, "histogram": {"low": 0}},
}


BROKEN = {
    "": "is torn", "{": "is torn", "[]": "is not of format 1", '{"format": 2}': "is not of format 1",
    '{"format": 1}': "lists no layers", '{"format": 1, "layers": [1]}': "lists no layers", "[" * 100_000: "is torn",
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_file_that_cannot_be_used_is_a_hole_with_its_reason(tmp_path: Path, content: str) -> None:
    stages = sweep(tmp_path, methods=1)
    keep(tmp_path, stages[1], "layers.json", content)
    keep(tmp_path, stages[0], "confusion.json", content)
    keep(tmp_path, stages[3], "confusion.json", content)
    found = results.load(tmp_path, "small").evidence
    assert found.shown["problem"].tolist() == [f"layers.json {BROKEN[content]}", None]
    assert found.layers["configuration"].nunique() == 1 and found.confusions == ()


def test_a_record_that_is_no_file_is_a_hole_and_is_not_waited_for(tmp_path: Path) -> None:
    stages = sweep(tmp_path, methods=1)
    for one, content in ((stages[1], "/dev/zero"), (stages[2], "fifo")):
        spoil(tmp_path / one["key"] / "artifacts" / "layers.json", content)
    problems = results.load(tmp_path, "small").evidence.shown["problem"].tolist()
    assert problems == ["layers.json is a link", "layers.json is no regular file"]


def test_a_hole_keeps_its_row_and_says_why_in_the_figure_and_in_the_table(tmp_path: Path) -> None:
    stages = sweep(tmp_path / "runs", methods=2)
    (tmp_path / "runs" / stages[2]["key"] / "artifacts" / "layers.json").unlink()
    text = words(written(tmp_path / "runs", drawn=True, only=[layer_sections.noise]))
    assert text.count("layers.json was not recorded") == 4, "of weights and of inputs, drawn and listed"


def test_hostile_records_are_shown_as_far_as_they_are_numbers_and_become_no_markup(tmp_path: Path) -> None:
    stages = sweep(tmp_path / "runs", methods=2)
    bad = [
        HUGE,
        layer(HOSTILE, 3.0),
        layer("\ud800\x00", None),
        {"weight": [], "input": 7},
        layer("$\\frac{$", 30.0),
    ]
    bad[1]["weight"]["histogram"]["counts"] = [-1, "x", 1e300]
    keep(tmp_path / "runs", stages[1], "layers.json", {"format": 1, "layers": bad})
    rows = [{"0": 5, "1": 5}] * 2
    keep(
        tmp_path / "runs",
        stages[0],
        "confusion.json",
        {"format": 1, "names": [HOSTILE, "$\\frac{$"], "rows": rows},
    )
    for one in stages[1:]:
        (tmp_path / "runs" / one["key"] / "artifacts" / "confusion.json").unlink(missing_ok=True)
    below = [layer_sections.noise, layer_sections.ranges, layer_sections.classes]
    text = written(tmp_path / "runs", drawn=True, only=below)
    assert "img" not in [tag for tag, _ in Elements(text).found] and "<script>document" not in text
    assert "30.0" in words(text) and "the float network alone" in words(text)


@pytest.mark.parametrize("row", [{"7": 1}, {"-1": 1}, {"0": -1}, {"0": 1.5}, {"x": 1}, {"0": True}, [1]])
def test_a_confusion_of_other_things_than_images_is_left_out(tmp_path: Path, row: Any) -> None:
    stages = sweep(tmp_path, methods=1)
    for one in stages:
        keep(tmp_path, one, "confusion.json", {"format": 1, "names": None, "rows": [row, {}]})
    assert results.load(tmp_path, "small").evidence.confusions == ()


def test_of_a_thousand_classes_the_commonest_confusions_are_listed_and_no_matrix_is_drawn(
    tmp_path: Path,
) -> None:
    start = stage("float", 32, 0)
    amax = stage("amax", 4, 0, start)
    plan(tmp_path / "runs", start, amax)
    for one, wrong in ((start, 1), (amax, 9)):
        finish(tmp_path / "runs", one, 90.0)
        rows = [{str(true): 50 - wrong * (true == 7), "8": wrong * (true == 7)} for true in range(1000)]
        rows[8] = {"8": 50}
        keep(tmp_path / "runs", one, "confusion.json", {"format": 1, "names": None, "rows": rows})
    text = words(written(tmp_path / "runs"))
    assert "The 20 commonest confusions that amax w4a4 adds" in text and "7 8 1 +8" in text
    assert "confusion-figure" not in text and "Which class is taken for which" in text


def test_runs_of_before_have_no_such_section_and_no_such_figure(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    plan(tmp_path / "runs", start, amax := stage("amax", 4, 0, start))
    for one in (start, amax):
        finish(tmp_path / "runs", one, 90.0)
    text = written(tmp_path / "runs")
    assert "signal is lost" not in text and "ranges-figure" not in text and "taken for which" not in text


def test_equal_artifacts_give_equal_bytes(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    plan(tmp_path, start, amax := stage("amax", 4, 0, start))
    for one in (start, amax):
        finish(tmp_path, one, 90.0)
        record(tmp_path, one)
    found = results.load(tmp_path, "small").evidence
    drawn = [
        [
            html.svg(Picture("x", figure, "", ""))
            for figure in (
                layers.heat_map(found.shown, found.layers),
                layers.histograms(found.shown, found.layers),
                confusion.figure(found.confusions),
            )
        ]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 3
    assert all("<image" not in svg for svg in drawn[0]), "an SVG is drawn in lines, to be scaled"


def test_a_confusion_without_a_damaged_network_is_drawn_alone() -> None:
    one = compared.Confusion("a on b", ("x", "y"), np.array([[3, 1], [0, 4]]))
    figure = confusion.figure([one])
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.axison][:1] == ["a on b: float"]


@pytest.mark.usefixtures("undrawn")
def test_from_a_table_of_runs_no_run_folder_is_read_and_the_page_says_so(tmp_path: Path) -> None:
    sweep(tmp_path / "runs", methods=1)
    page = tmp_path / "small" / "report.html"
    words = ["small", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    assert main(words) == 0 and "Where the signal is lost" in page.read_text()
    (tmp_path / "runs.csv").write_bytes((tmp_path / "small" / "runs.csv").read_bytes())
    assert main([*words, "--from", str(tmp_path / "runs.csv")]) == 0
    text = page.read_text()
    assert "This page was made from a table of runs. What only the run folders hold is left out" in text
    assert "Where the signal is lost" not in text and '"folder"' not in text


def test_the_empty_classes_of_a_head_of_a_thousand_are_left_out(tmp_path: Path) -> None:
    """The ResNet-50's confusions of ten classes were listed as those of a thousand, without a matrix."""
    start = stage("float", 32, 0)
    amax = stage("amax", 4, 0, start)
    plan(tmp_path, start, amax)
    for one, taken in ((start, "3"), (amax, "700")):
        finish(tmp_path, one, 90.0)
        rows: list[dict[str, int]] = [{} for _ in range(1000)]
        rows[1], rows[3] = {"1": 40, taken: 10}, {"3": 50}
        keep(tmp_path, one, "confusion.json", {"format": 1, "names": None, "rows": rows})
    (found,) = results.load(tmp_path, "small").evidence.confusions
    assert found.classes == ("1", "3", "700") and found.damaged is not None
    assert found.baseline.tolist() == [[40, 10, 0], [0, 50, 0], [0, 0, 0]]
    assert found.damaged.tolist() == [[40, 0, 10], [0, 50, 0], [0, 0, 0]]
