"""The best lines of a panel are the best at some width, and lines of easy widths alone displace no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.draw.best_lines import MOST, _short, best

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
    assert _short([{"method": "best", "line": line}]) == {line: f"best, first and last layer {ends}"}
