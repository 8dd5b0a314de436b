"""The published numbers: each is in its source, in its own quote, and has a baseline of the same source."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from analysis.read import published

NUMBERS = published.load()
SOURCES = os.environ.get("SUITE_SOURCES")


def test_every_baseline_is_a_number_of_the_same_source_and_ids_are_unique() -> None:
    ids = [number.id for number in NUMBERS.numbers]
    assert len(ids) == len(set(ids)) == 20
    stated = [number for number in NUMBERS.numbers if number.baseline]
    assert len(stated) == 8
    for number in stated:
        assert number.baseline in ids and number.baseline.startswith(number.source)
        assert NUMBERS.drop(number) is not None
    assert {number.match["method"] for number in NUMBERS.numbers} <= {"float", *NUMBERS.methods}


def test_every_value_is_in_its_own_quote() -> None:
    for number in NUMBERS.numbers:
        quoted = [float(digits) for digits in re.findall(r"\d+(?:\.\d+)?", number.quote)]
        assert number.value in quoted, number.id


@pytest.mark.skipif(not SOURCES, reason="SUITE_SOURCES does not name the folder of the source texts")
def test_every_quote_is_in_its_source_word_for_word() -> None:
    texts = {path.name[:3]: " ".join(path.read_text().split()) for path in Path(SOURCES or "").glob("*.txt")}
    assert sorted(texts) == ["000", "001", "002", "003", "004"]
    for number in NUMBERS.numbers:
        assert " ".join(number.quote.split()) in texts[number.source], number.id


def test_a_label_never_describes_what_was_run() -> None:
    labelled = [number for number in NUMBERS.numbers if number.labelled]
    assert len(labelled) == 13
    for number in labelled:
        assert any(number.match.get(name) != value for name, value in number.labelled.items()), number.id
