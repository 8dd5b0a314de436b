"""The best lines of a panel are the best at some width, and lines of easy widths alone displace no other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from analysis.draw.best_lines import MOST, _words, best, inches, name_ends, panel

DROPS = st.floats(-1, 90, allow_nan=False)
LINES = st.lists(st.dictionaries(st.sampled_from([16, 8, 6, 4, 3]), DROPS, min_size=1), max_size=20)


def rows(lines: dict[str, dict[int, float]]) -> list[dict[str, Any]]:
    return [
        {"line": name, "weight_bits": bits, "drop": drop, "n": 1}
        for name, drops in lines.items()
        for bits, drop in drops.items()
    ]


def test_a_line_that_has_eight_bits_alone_displaces_none_that_has_fewer() -> None:
    eight = {f"only at eight {number}": {8: -0.5 - number} for number in range(4)}
    spanning = {f"line {number}": {8: number / 10, 4: 1.0 + number} for number in range(6)}
    (names, count) = best(rows(eight | spanning))
    assert names == ["only at eight 2", "only at eight 3", *spanning] and count == 10


def test_the_lines_that_are_drawn_at_four_bits_are_those_that_lose_least_there() -> None:
    """`histogram` was drawn, with a drop of 4.09 at 4 bits, and `percentile`, with 1.92, was left out."""
    narrow = {"lsq": {4: 0.0}, "best": {4: 0.0}, "adaround": {4: 0.42}, "mse": {8: 0.0, 4: 6.7}}
    narrow |= {"amax": {8: 0.0, 4: 2.0}, "percentile": {8: 0.3, 4: 1.92}, "entropy": {8: 0.0, 4: 5.6}}
    narrow |= {"histogram": {8: 0.0, 4: 4.09}, "k": {8: 0.0, 4: 7.0}}
    eight = {name: {8: -0.1} for name in ("builtin_int8", "qat_symmetric", "qat_asymmetric")}
    names, count = best(rows(eight | narrow))
    assert set(names) == narrow.keys() - {"k"} and count == 12


def test_a_method_that_is_best_at_one_width_is_drawn_however_bad_it_is_at_another() -> None:
    steady = {f"line {number:02}": {6: 1.0 + number, 3: 30.0 + number} for number in range(12)}
    for bits, other in ((6, 3), (3, 6)):
        names, _ = best(rows(steady | {"best at one": {bits: 0.1, other: 90.0}}))
        assert "best at one" in names and len(names) == MOST


@given(LINES)
def test_no_line_is_drawn_while_one_that_is_better_at_each_of_its_widths_is_left_out(
    lines: list[dict[int, float]],
) -> None:
    named = {f"line {number}": drops for number, drops in enumerate(lines)}
    names, count = best(rows(named))
    assert count == len(lines) and len(names) == min(MOST, count)
    assert names == [name for name in named if name in names], "in the order of the rows"
    for name in named.keys() - set(names):
        for drawn in names:
            assert not all(named[name].get(bits, 100.0) < drop for bits, drop in named[drawn].items())


@pytest.mark.parametrize(
    "ends",
    [
        "as the rest but image 8 bits",
        "weights 8 bits, inputs float",
        "8 bits",
        "weights 8 bits, inputs 4 bits",
    ],
)
def test_the_name_of_a_methods_only_line_keeps_all_that_it_says_of_the_ends(ends: str) -> None:
    line = f"best, 512 images, first and last layer {ends}, BatchNorm folded"
    words = _words([{"method": "best", "line": line}])
    assert words[line].replace("\n", " ") == f"best, first and last layer {ends}"


def test_names_of_three_lines_each_stay_beside_an_axis_that_is_as_high_as_they_ask() -> None:
    """In a figure of 3.5 inches the first name was written over the title."""
    long = "mse, first and last layer 8 bits, BatchNorm re-estimated"
    lines = {f"{long}, {number} images": {8: 0.1, 4: 1.0, 3: 40.0 + number} for number in range(MOST)}
    found = [
        row | {"method": "mse"} | dict.fromkeys(("drop_low", "drop_high"), row["drop"]) for row in rows(lines)
    ]
    size = 7.5
    high = inches(found, size)
    assert high > MOST * 3 * size / 72
    figure = Figure(figsize=(3.5, high + 1))
    axes = figure.add_axes((0.15, 0.5 / (high + 1), 0.83, high / (high + 1)))
    panel(axes, found, "resnet50 on cifar10", 42)
    name_ends(axes, found, size)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == MOST and all(one.y1 <= other.y0 + 1 for one, other in pairwise(boxes))
    assert boxes[-1].y1 <= axes.get_window_extent().y1 + 1 and boxes[0].y0 >= axes.get_window_extent().y0 - 1
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
