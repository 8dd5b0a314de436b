"""The comparison as CSV, as Markdown and as cells: one row a configuration, holes shown as such."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.compare import agreement
from analysis.compare.configurations import FLOAT_BITS, by_network, hole
from analysis.read import published
from analysis.read.budgets import METHOD
from analysis.report import wording
from analysis.report.results import Results
from suite.record.words import counted

# Heading of each column, and whether it holds numbers.
COLUMNS = (
    ("method", False),
    ("source", False),
    ("weights", True),
    ("acts", True),
    ("top-1 % (n)", True),
    ("95 %", True),
    ("drop", True),
    ("95 %", True),
    ("MB", True),
    ("published", False),
    ("its top-1", True),
    ("its drop", True),
    ("verdict", False),
)
LEAST = (1, 11, 7, 8, 10, 9, 3, 5, 6)
"""The columns that a narrow terminal does without, the first first."""
COLOURS = dict(zip(agreement.JUDGED, ("green", "red", "green", "red", "yellow"), strict=True))
PUBLISHED = (
    "id",
    "source",
    "published_label",
    "published_model",
    "published_dataset",
    "published",
    "published_drop",
    "published_best",
)
OURS = 9
"""How many of COLUMNS are of our own runs, from the left."""
DETAILS = 5


@dataclass(frozen=True)
class Section:
    """The rows of one model on one dataset, formatted; every row has a text for each of COLUMNS."""

    title: str
    rows: tuple[tuple[str, ...], ...]


def joined(configurations: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Each configuration beside the published top-1 values that it re-runs, unformatted.

    A configuration has a row for each of them, and one with empty published columns where there is none.
    """
    published = comparison[(comparison["metric"] == "top1") & comparison["configuration"].notna()]
    columns = ["configuration", *PUBLISHED, "difference", "tolerance", "verdict"]
    renamed = published[columns].rename(columns={"id": "published_id", "source": "published_source"})
    return configurations.merge(renamed, on="configuration", how="left", sort=False)


def sections(table: pd.DataFrame) -> list[Section]:
    """The table made by `joined`, formatted, one section for each model and dataset in it."""
    found = []
    for title, group in by_network(table):
        rows, above = [], None
        for row in group.to_dict("records"):
            # A second published number of the same configuration goes below the first, not beside a copy.
            ours = ("",) * OURS if row["configuration"] == above else _ours(row)
            above = row["configuration"]
            rows.append((*ours, *_published(row)))
        found.append(Section(title, tuple(rows)))
    return found


def markdown(results: Results) -> str:
    """The result table in Markdown, and below it how it was measured and what is missing."""
    parts = []
    for section in sections(joined(results.summary, results.comparison)):
        parts.append(f"**{section.title}**\n\n{grid(section.rows)}")
    parts.append("\n".join(f"- {line}" for line in notes(results)))
    return "\n\n".join(parts) + "\n"


def summary(results: Results) -> str:
    """Top-1 of each method over the widths, in Markdown, and how it was measured: what a README shows."""
    parts = []
    counts = Counter(wording.count(row) for row in results.summary.to_dict("records") if row["n"])
    usual = max(counts, key=lambda count: counts[count], default="")
    for title, group in by_network(results.summary):
        widths = sorted(group["weight_bits"].unique(), reverse=True)
        columns = [("top-1 %", False), ("acts", False), *((wording.bits(width), True) for width in widths)]
        rows = []
        floats = group["act_bits"] == FLOAT_BITS
        for (label, left_float), line in group.groupby(["label", floats], sort=False):
            # What marks the whole line is marked at its head.
            every = set.intersection(*(set(marks.split()) for marks in line["marks"]))
            cells = {row["weight_bits"]: _cell(row, usual, every) for row in line.to_dict("records")}
            acts = "float" if left_float else "quantized"
            rows.append([label + _marked(every), acts, *(cells.get(width, "") for width in widths)])
        parts.append(f"**{title}, by bits**\n\n{grid(rows, columns)}")
    beside = (
        f"±: to the farther end of the 95 % interval; n = {usual or 0} where no other n is given in brackets."
    )
    parts += [
        " ".join([*_measured(results.marked), beside]),
        "\n".join(f"- {line}" for line in _marks(results)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _cell(row: dict[str, Any], usual: str, known: Set[str]) -> str:
    if not row["n"]:
        return hole(row)
    half = max(row["top1_high"] - row["top1"], row["top1"] - row["top1_low"])
    counted = "" if wording.count(row) == usual else f" ({wording.count(row)})"
    return f"{wording.number(row['top1'])} ±{half:.2f}{counted}{_marked(set(row['marks'].split()) - known)}"


def _marked(marks: Set[str]) -> str:
    return f" [{','.join(sorted(marks, key=lambda mark: (len(mark), mark)))}]" if marks else ""


def _marks(results: Results) -> list[str]:
    return [f"[{mark}] {words}" for mark, words in results.differences.words.items()]


def _measured(marked: pd.DataFrame) -> list[str]:
    """On what, how often, where and with what the finished runs were measured, a sentence or two each."""
    done = marked[marked["state"] == "done"]
    lines = []
    for (model, dataset), group in done.groupby(["model", "dataset"]):
        images = ", ".join(
            counted(int(n), "test image") for n in sorted(group["test_images"].dropna().unique())
        )
        seeds = ", ".join(str(seed) for seed in sorted(group["seed"].unique()))
        lines.append(f"Measured: {model} on {dataset}, {images}, seeds: {seeds}.")
    if len(done):
        commits = map(wording.commit, done["commit"], done["dirty"])
        lines.append(
            f"Device: {wording.distinct(done['device'])}. Versions: {wording.distinct(done['versions'])}. "
            f"Commit: {wording.distinct(commits)}."
        )
    return lines


def notes(results: Results) -> list[str]:
    """How the table was measured, how to read it, and what is missing, a sentence or two each."""
    done = results.done
    lines = _measured(results.marked)
    lines.append(
        "Top-1: mean ± sample standard deviation over n seeds. Drop: float top-1 minus top-1, in points, each "
        "run against its own start. MB: size of the model as stored."
    )
    if (done["method"] == METHOD).any():
        lines.append(
            "Of widths by layer, weights and acts are the means that their budget allows; of random ones n counts "
            "draws of widths, and mean and ± are over them."
        )
    lines.append(
        "95 %: of the mean over seeds by Student's t, or of one run by its number of test images, whichever is wider; "
        "both ends of a drop count as if measured on images of their own. A run is evaluated after its last epoch, "
        "never at its best; a published best epoch is called one."
    )
    lines.append(f"{agreement.DEFINITION} Behind the ±: how far they may differ.")
    lines += filter(None, [wording.chosen_on(results.summary["method"]).strip()])
    lines += sources(set(results.summary["source"]))
    # A model whose outputs overflowed has no class to be right or wrong about; its top-1 is then 0, below chance.
    infinite = done[done["loss"].isna()]
    if len(infinite):
        named = sorted(
            {f"{row['label']} at {wording.bits(row['weight_bits'])}" for row in infinite.to_dict("records")}
        )
        lines.append(f"{wording.INFINITE}: {'; '.join(named)}.")
    return (
        lines + _marks(results) + remarks(results.comparison) + _missing(results.marked, results.comparison)
    )


def sources(numbers: Set[str]) -> list[str]:
    """What each of the sources is, a line each."""
    known = published.load().sources
    return [f"Source {number}, {known[number]}." for number in sorted(numbers & known.keys())]


def remarks(comparison: pd.DataFrame) -> list[str]:
    """Where the label or the value of a number in the table is not what it seems, equal remarks listed once."""
    found: dict[tuple[str, str], list[str]] = {}
    shown = comparison[(comparison["metric"] == "top1") & comparison["configuration"].notna()]
    for row in shown.drop_duplicates("id").to_dict("records"):
        if row["note"]:
            found.setdefault((row["source"], row["note"]), []).append(row["published_label"])
    return [f"{', '.join(labels)} ({source}): {note}." for (source, note), labels in found.items()]


def _missing(marked: pd.DataFrame, comparison: pd.DataFrame) -> list[str]:
    lines = []
    states = {
        state: marked[marked["state"] == state] for state in ("failed", "running", "stopped", "pending")
    }
    if any(map(len, states.values())):
        counts = ", ".join(f"{len(rows)} {state}" for state, rows in states.items() if len(rows))
        lines.append(f"Not done: {counts} of {counted(len(marked), 'stage')}.")
    failed = states["failed"].sort_values(["name", "key"]).to_dict("records")
    lines += [f"Failed: {row['name']}: {row['error'] or 'no reason given'}" for row in failed[:DETAILS]]
    if len(failed) > DETAILS:
        lines.append(f"Failed: {len(failed) - DETAILS} more, see runs.csv.")
    absent = comparison[comparison["configuration"].isna() & (comparison["metric"] == "top1")]
    if len(absent):
        named = "; ".join(map(wording.published, absent.to_dict("records")))
        lines.append(f"Published, and not part of this sweep: {named}.")
    return lines


def _ours(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["label"],
        row["source"],
        *(wording.bits(row[name]) for name in ("weight_bits", "act_bits")),
        _top1(row),
        _interval(row, "top1"),
        *(("", "") if row["method"] == "float" else (_mean(row, "drop"), _interval(row, "drop"))),
        wording.number(row["model_size_mb"], ".3g"),
    )


def _published(row: dict[str, Any]) -> tuple[str, ...]:
    if not isinstance(row["verdict"], str):
        return ("",) * 4
    is_claimed = row["verdict"] != agreement.MEASURES_ELSE and not math.isnan(row["tolerance"])
    claimed = f" ±{row['tolerance']:.2f}" if is_claimed else ""
    return (
        wording.published({**row, "source": row["published_source"]}),
        wording.number(row["published"]),
        wording.number(row["published_drop"]),
        row["verdict"] + claimed,
    )


def _mean(row: dict[str, Any], metric: str) -> str:
    spread = "" if math.isnan(row[f"{metric}_sd"]) else f" ± {row[f'{metric}_sd']:.2f}"
    return wording.number(row[metric]) + spread


def _interval(row: dict[str, Any], metric: str) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return "" if math.isnan(low) else f"{wording.number(low)} to {wording.number(high)}"


def _top1(row: dict[str, Any]) -> str:
    if not row["n"]:
        return f"{hole(row)} (0 of {row['expected']})"
    return f"{_mean(row, 'top1')} ({wording.count(row)}){_marked(set(row['marks'].split()))}"


def grid(rows: Sequence[Sequence[str]], columns: Sequence[tuple[str, bool]] = COLUMNS) -> str:
    """A Markdown table whose columns line up in the source too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [[heading for heading, _ in columns], *cells]
    widths = [max(4, *(len(line[index]) for line in lines)) for index in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, (_, numeric) in zip(row, widths, columns, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * (width - 1) + ":" if numeric else "-" * width
        for width, (_, numeric) in zip(widths, columns, strict=True)
    )
    return "\n".join([line(lines[0]), f"| {' | '.join(rule)} |", *map(line, lines[1:])])
