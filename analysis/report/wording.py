"""Numbers and facts as the report words them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from analysis.compare.configurations import FLOAT_BITS
from analysis.compare.roles import is_drawn, source_title
from suite.record.words import counted

MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NO-BREAK SPACE}"
INFINITE = "The loss is not finite (outputs overflowed; an image whose output is NaN counts as wrong)"


def number(value: float, layout: str = ".2f") -> str:
    """`value` with a true minus sign, or nothing where it is NaN.

    >>> number(-0.5) == f"{MINUS}0.50", number(-0.001), number(float("nan"))
    (True, '0.00', '')
    """
    if math.isnan(value):
        return ""
    text = format(value, layout)
    return text.removeprefix("-") if not text.strip("-0.") else text.replace("-", MINUS)


def devices(names: Iterable[str]) -> str:
    """Each device once, with the numbers of threads that it ran on.

    >>> devices(["AMD EPYC, 2 threads", "NVIDIA H200", "AMD EPYC, 1 thread"])
    'AMD EPYC, 1 or 2 threads, NVIDIA H200'
    """
    threads: dict[str, list[int]] = {}
    for name in sorted(set(names)):
        found = re.search(r", (\d+) threads?$", name)
        threads.setdefault(name[: found.start()] if found else name, []).extend(
            [int(found[1])] if found else []
        )
    return ", ".join(
        f"{device}, {' or '.join(map(str, sorted(counts)))} thread{'' if counts == [1] else 's'}"
        if counts
        else device
        for device, counts in threads.items()
    )


def interval(row: Mapping[str, float]) -> str:
    """The ends of the interval of a difference, or nothing where they are not known.

    >>> interval({"low": -0.5, "high": 0.25}) == f"{MINUS}0.50 to +0.25"
    True
    """
    low, high = (number(row[end], "+.2f") for end in ("low", "high"))
    return f"{low} to {high}" if low and high else ""


def chance(p: float) -> str:
    """A p, or nothing where there was no test.

    >>> chance(0.0301), chance(1e-9), chance(float("nan"))
    ('0.030', '< 0.001', '')
    """
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def spread(row: Mapping[str, Any], metric: str = "top1") -> str:
    """The text beside a mean: `± 0.12 · n 3 (90.1 to 90.7)`, without ± at `n 1`; `n 2 of 3` where runs are
    missing, `n 20 draws` of random widths. The brackets hold its 95 % interval."""
    deviation, low = row[f"{metric}_sd"], row.get(f"{metric}_low", math.nan)
    parts = [] if math.isnan(deviation) else [f"± {deviation:.2f}"]
    parts.append(f"n {count(row)}")
    ends = "" if math.isnan(low) else f" ({number(low, '.1f')} to {number(row[f'{metric}_high'], '.1f')})"
    # A line is broken before the brackets, or where a part ends.
    return " · ".join(part.replace(" ", NARROW) for part in parts) + ends[:1] + ends[1:].replace(" ", NARROW)


def count(row: Mapping[str, Any]) -> str:
    """How many runs are behind a configuration: `3`, `2 of 3` where some are missing, `20 draws` of random widths."""
    runs = str(row["n"]) if row["n"] == row["expected"] else f"{row['n']} of {row['expected']}"
    return f"{runs} draw{'' if runs == '1' else 's'}" if is_drawn(row) else runs


def published(row: Mapping[str, Any]) -> str:
    """A published number by its label and its source; the row is one of `compare.agreement`.

    >>> published({"published_label": "8bit hist", "source": "002", "published_best": False})
    '8bit hist (002)'
    """
    return f"{row['published_label']} ({row['source']})" + (", best epoch" if row["published_best"] else "")


def published_by(row: Mapping[str, Any]) -> str:
    """As `published`, with the source's title, for where its number alone would not say which it is.

    >>> published_by({"published_label": "8bit hist", "source": "002", "published_best": False})
    '8bit hist, Handwritten-Quantization (002)'
    """
    best = ", best epoch" if row["published_best"] else ""
    return f"{row['published_label']}, {source_title(row['source'])}{best}"


def bits(width: float) -> str:
    """`float` for 32 bits, else the number.

    >>> bits(4), bits(2.5), bits(32)
    ('4', '2.5', 'float')
    """
    return "float" if width == FLOAT_BITS else f"{width:g}"


LEARNED_ROUNDING = ("adaround", "brecq", "qdrop", "best")
"""The methods whose settings `benchmarks.reconstruction_settings` chose, as docs/experiments.md records."""


def chosen_on(methods: Iterable[str]) -> str:
    """A sentence, after a space, on which images the settings of the methods were chosen; nothing where none was.

    >>> chosen_on(["mse", "best"])[:45], chosen_on(["mse"])
    (' The settings of best were chosen on 2,000 tr', '')
    """
    found = [name for name in LEARNED_ROUNDING if name in set(methods)]
    if not found:
        return ""
    return (
        f" The settings of {' and '.join(found)} were chosen on 2,000 training images of CIFAR-10 that no "
        f"calibration draws, by ResNet-20; test images chose nothing."
    )


def hours(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> hours(40), hours(600), hours(7200)
    ('40 seconds', '10 minutes', '2.0 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def commit(sha: Any, is_dirty: Any) -> str | None:
    """The first 10 letters of a commit, and whether files were changed since; None where it is not known."""
    if not isinstance(sha, str):
        return None
    return sha[:10] + (" with uncommitted changes" if is_dirty is True else "")


def distinct(values: Iterable[Any]) -> str:
    """Each distinct value, the commonest first, and of how many runs it is where there are several.

    >>> distinct(["a", "a", "b"]), distinct(["a"])
    ('a (2 runs); b (1 run)', 'a')
    """
    counts = Counter(value if isinstance(value, str) else "unknown" for value in values)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    if len(ordered) == 1:
        return ordered[0]
    return "; ".join(f"{value} ({counted(counts[value], 'run')})" for value in ordered)
