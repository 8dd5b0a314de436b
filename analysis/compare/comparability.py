"""Where the runs behind a number were made differently from the rest of its table: a mark and its words.

Runs of one model and data set are comparable only where device, software, code and data agree, and how the network
was trained and what was done to it beside rounding. The value that most runs have is the table's; a configuration
with a run that has another is marked. Commits are no difference: a change of a method's arithmetic changes the keys of
its runs. What the label of a configuration says needs no mark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import pandas as pd

from analysis.compare.configurations import PHRASES

FACTS = {
    "device": "device",
    "versions": "software",
    "commit": "state of the code",
    "test_images": "number of test images",
    "test_sha256": "checksum of the test data",
    "train_sha256": "checksum of the training data",
    "epochs": "number of epochs",
    "precision": "precision of training",
    "batch_norm": "treatment of BatchNorm",
    "ranks": "BatchNorm over ranks",
    "edges": "treatment of the first and the last layer",
}
SHOWN = 4


@dataclass(frozen=True)
class Differences:
    """`marks` of each configuration that has any, in order; `words` explain each mark."""

    marks: Mapping[str, tuple[str, ...]]
    words: Mapping[str, str]


def find(marked: pd.DataFrame) -> Differences:
    """The differences among the finished runs of a table made by `configurations.mark`.

    A run that did not record a fact (a run directory of an older version) is not taken to differ in it.
    """
    marks: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    letters = (_letter(number) for number in count())
    done = marked[marked["state"] == "done"]
    for _, group in done.groupby(["model", "dataset"], sort=True):
        rows = group.to_dict("records")
        for fact, title in FACTS.items():
            values = [None if _is_said(fact, row) else _value(fact, row) for row in rows]
            usual = _usual(values)
            others = sorted({value for value in values if value is not None} - {usual})
            for alike in [others] if len(others) > SHOWN else [[value] for value in others]:
                letter = next(letters)
                words[letter] = _words(fact, title, usual, alike)
                for configuration in dict.fromkeys(group["configuration"][[v in alike for v in values]]):
                    marks.setdefault(configuration, []).append(letter)
    return Differences({name: tuple(found) for name, found in marks.items()}, words)


def _is_said(fact: str, row: Mapping[str, Any]) -> bool:
    """Whether the label says it: `mse, BatchNorm re-estimated`."""
    return fact in PHRASES and PHRASES[fact].format(row.get(fact)) in row["label"]


def _value(fact: str, row: Mapping[str, Any]) -> str | None:
    if fact == "ranks":
        return _over_ranks(row)
    if fact in ("epochs", "precision"):
        return _training(fact, row)
    value: Any = row.get(fact)
    if not _known(value):
        return None
    if fact == "test_images":
        return f"{int(value):,}"
    if fact == "commit":
        return f"{value[:10]} with uncommitted changes" if row["dirty"] is True else "a commit"
    return str(value)[:10] if fact in ("test_sha256", "train_sha256") else str(value)


def _known(value: Any) -> bool:
    return value is not None and value == value


def _training(fact: str, row: Mapping[str, Any]) -> str | None:
    """The float stage's, and what the method trained on with: `30 and 15 more`, `O2 float16, then O0`."""
    of_float, further = row.get(fact), row.get(f"feed_{fact}")
    if not _known(of_float) or not _known(further):
        return str(of_float) if _known(of_float) else None
    if fact == "epochs":
        return f"{of_float} and {further} more"
    return str(of_float) if of_float == further else f"{of_float}, then {further}"


def _over_ranks(row: Mapping[str, Any]) -> str | None:
    """Over what a training, the float stage's or the method's, normalized: each of several ranks may have taken its
    share."""
    if not _known(row.get("sync_batch_norm")):
        return None
    alone = [
        row.get(f"{feed}sync_batch_norm") is False and (row.get(f"{feed}world_size") or 1) > 1
        for feed in ("", "feed_")
    ]
    return "each rank's share" if any(alone) else "the whole batch"


def _usual(values: list[str | None]) -> str:
    counts = Counter(value for value in values if value is not None)
    return min(counts, key=lambda value: (-counts[value], value), default="")


def _words(fact: str, title: str, usual: str, others: list[str]) -> str:
    if fact == "versions":
        others, usual = _differing(others, usual)
    shown = "; ".join(others[:SHOWN]) + (f"; {len(others) - SHOWN} more" if len(others) > SHOWN else "")
    return f"Another {title} behind this number: {shown}; in most of the table {usual}."


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
