"""Where the runs behind a number were made differently from the rest of its table: a mark and its words.

Runs of one model and data set are comparable only where device, software, commit, test images and data agree. The
value that most runs have is the table's; a configuration with a run that has another is marked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import pandas as pd

FACTS = {
    "device": "device",
    "versions": "software",
    "commit": "commit",
    "test_images": "number of test images",
    "test_sha256": "checksum of the test data",
    "train_sha256": "checksum of the training data",
}
SHOWN = 4


@dataclass(frozen=True)
class Differences:
    """`marks` of each configuration that has any, in order; `words` say what each mark means."""

    marks: Mapping[str, tuple[str, ...]]
    words: Mapping[str, str]


def find(marked: pd.DataFrame) -> Differences:
    """The differences among the finished runs of a table made by `configurations.mark`.

    A run that does not say a fact (a run directory of an older version) is not taken to differ in it.
    """
    marks: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    letters = (_letter(number) for number in count())
    done = marked[marked["state"] == "done"]
    for _, group in done.groupby(["model", "dataset"], sort=True):
        for fact, title in FACTS.items():
            values = [_value(fact, row) for row in group.to_dict("records")]
            usual = _usual(values)
            other = [value not in (None, usual) for value in values]
            if not any(other):
                continue
            letter = next(letters)
            words[letter] = _words(fact, title, usual, sorted({str(v) for v in values} - {"None", usual}))
            for configuration in dict.fromkeys(group["configuration"][other]):
                marks.setdefault(configuration, []).append(letter)
    return Differences({name: tuple(found) for name, found in marks.items()}, words)


def _value(fact: str, row: Mapping[str, Any]) -> str | None:
    value = row[fact]
    if value is None or value != value:
        return None
    if fact == "test_images":
        return f"{int(value):,}"
    if fact == "commit" and row["dirty"] is True:
        return f"{value[:10]} with uncommitted changes"
    return str(value)[:10] if fact in ("commit", "test_sha256", "train_sha256") else str(value)


def _usual(values: list[str | None]) -> str:
    counts = Counter(value for value in values if value is not None)
    return min(counts, key=lambda value: (-counts[value], value), default="")


def _words(fact: str, title: str, usual: str, others: list[str]) -> str:
    if fact == "versions":
        others, usual = _differing(others, usual)
    shown = "; ".join(others[:SHOWN]) + (f"; {len(others) - SHOWN} more" if len(others) > SHOWN else "")
    return f"Another {title}: runs behind this number have {shown}; most of the table has {usual}."


def _differing(others: list[str], usual: str) -> tuple[list[str], str]:
    """Lists of versions without those that all have.

    >>> _differing(["numpy 2, torch 1"], "numpy 2, torch 3")
    (['torch 1'], 'torch 3')
    """
    parts = [text.split(", ") for text in (*others, usual)]
    same = set.intersection(*map(set, parts))
    *rest, last = (
        ", ".join(part for part in found if part not in same) or "fewer packages" for found in parts
    )
    return rest, last


def _letter(number: int) -> str:
    """a to z, then aa, ab and so on.

    >>> [_letter(0), _letter(25), _letter(26), _letter(28)]
    ['a', 'z', 'aa', 'ac']
    """
    high, low = divmod(number, 26)
    return (_letter(high - 1) if high else "") + chr(ord("a") + low)
