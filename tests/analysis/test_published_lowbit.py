"""The papers' numbers on low widths are read, each with its quote, and say which of ours stands beside them."""

from __future__ import annotations

import pytest

from analysis.read import published
from suite import methods

NUMBERS = published.load(published.PATH.with_name("published_lowbit.toml"))


def test_each_number_stands_in_its_quote_and_has_a_name_of_its_own() -> None:
    ids = [number.id for number in NUMBERS.numbers]
    assert len(ids) == len(set(ids)) and not set(ids) & {number.id for number in published.load().numbers}
    for number in NUMBERS.numbers:
        as_stated = [f"{number.value:.2f}", str(number.value), repr(round(number.value / 100, 6))]
        if "; error " in number.note:
            as_stated = [f"{100 - number.value:.2f}%"]
        assert any(one in number.quote for one in as_stated), number.id
        assert number.note and number.match["method"]


def test_the_records_lose_what_is_said_of_them() -> None:
    loss = {number.id: NUMBERS.drop(number) for number in NUMBERS.numbers}
    assert loss["llt-llt-w4a4"] == pytest.approx(0.25) and loss["apot-w2a2"] == pytest.approx(2.0)
    assert loss["apot-w3a3"] == pytest.approx(0.47) and loss["llt-pact-w4a4"] is None


def test_what_is_ours_to_run_is_a_method_of_the_suite() -> None:
    ours = set(methods.find())
    assert set(NUMBERS.methods) <= ours
    fields = {name: set(methods.find()[name].__dataclass_fields__) for name in NUMBERS.methods}  # type: ignore[attr-defined]
    for number in NUMBERS.numbers:
        if number.match["method"] in fields:
            assert set(number.match) <= fields[number.match["method"]] | {"method"}, number.id
