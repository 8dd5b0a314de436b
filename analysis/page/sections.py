"""Report sections: published numbers, switches, training curves, and how it was measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare import ablation, agreement
from analysis.compare.configurations import FLOAT_BITS, JOURNALS, MLFLOW, by_network
from analysis.draw import training_curves, waterfall
from analysis.page.accuracy_sections import hole_cell
from analysis.page.parts import Cell, Column, Fact, Facts, Lines, Part, Picture, Section, Table, notes_of
from analysis.report import ablation_table, tables, to_judge, wording
from analysis.report.results import Results
from suite.record.words import counted

TONES = dict(zip(agreement.JUDGED, ("good", "bad", "good", "bad", "wait"), strict=True))
SIGNS = {"good": "✓ ", "bad": "✗ ", "wait": "≠ "}
HOW = (
    "± is the sample standard deviation over n seeds; with one run there is none. An interval of 95 % is that "
    "of the mean over seeds by Student's t, or that of one run by its number of test images, whichever is "
    "wider. A run is evaluated after its last epoch, never at its best on the test images; a published number "
    "of a best epoch says so. runs.csv beside this page has every field of every run."
)
UNJUDGED = {
    agreement.OTHER: "of another model or data than was run here",
    agreement.UNNAMED: "of a network that the source does not name",
    agreement.TRAINED_ELSEWHERE: "of a training of the source's own, whose float accuracy it does not state",
}
"""The verdicts that say nothing of a number, and why."""
PUBLISHED_COLUMNS = (
    Column("number (source)"),
    Column("re-run as"),
    Column("published %", True),
    Column("ours %", True),
    Column("difference", True),
    Column("verdict"),
)


def published(results: Results) -> Section:
    """Every published number that can be judged beside our own, with a verdict; the others in one line, which opens to
    why not and which command would judge them."""
    is_absent = results.comparison["configuration"].isna()
    present = results.comparison[~is_absent]
    is_unjudged = present["verdict"].isin(UNJUDGED)
    by_configuration = {row["configuration"]: row for row in results.summary.to_dict("records")}
    rows = [
        _published(row, by_configuration[row["configuration"]], results)
        for row in present[~is_unjudged].to_dict("records")
    ]
    parts: list[Part] = []
    if rows:
        parts.append(Lines([f"{agreement.DEFINITION} Behind the ±: how far they may differ."]))
        notes = notes_of(rows, results.differences.words)
        caption = "Published numbers and the runs that repeat them"
        parts.append(Table(caption, PUBLISHED_COLUMNS, rows, notes, cards=True))
    sources = tables.sources(set(results.comparison["source"]))
    if rows and sources:
        parts.append(Lines(sources))
    if is_absent.any() or is_unjudged.any():
        parts.append(_unjudged(results, present[is_unjudged], results.comparison[is_absent], bool(rows)))
    return Section("published", "Published and reproduced", parts)


def _unjudged(results: Results, unjudged: pd.DataFrame, absent: pd.DataFrame, has_judged: bool) -> Lines:
    """The numbers that this sweep does not judge, in a line that opens to the reasons."""
    total, count = results.comparison["id"].nunique(), pd.concat([unjudged["id"], absent["id"]]).nunique()
    lines = [
        f"Not judged, {UNJUDGED[reason]}: {_names(group)}."
        for reason, group in unjudged.groupby("verdict", sort=False)
    ]
    if len(absent):
        lines.append(f"Not part of this sweep: {_names(absent)}.")
    lines += to_judge.remedies(results.comparison)
    if has_judged:
        return Lines(lines, fold=f"{count} of {counted(total, 'published number')} not judged by this sweep")
    lines += tables.sources(set(results.comparison["source"]))
    return Lines(lines, fold=f"None of {counted(total, 'published number')} is judged by this sweep")


def _names(numbers: pd.DataFrame) -> str:
    return "; ".join(dict.fromkeys(map(wording.published, numbers.to_dict("records"))))


def _published(row: dict[str, Any], configuration: dict[str, Any], results: Results) -> list[Cell]:
    source = f"{wording.published_by(row)}, {row['metric'].replace('top', 'top-')}"
    model = row["published_model"] if isinstance(row["published_model"], str) else "no model named"
    verdict, tone = row["verdict"], TONES.get(row["verdict"], "")
    beside = "" if math.isnan(row["tolerance"]) else f"± {row['tolerance']:.2f}"
    if verdict == agreement.MEASURES_ELSE:
        beside = f"done as labelled: {wording.number(row['ours_labelled'])}"
    spread = wording.spread(configuration, row["metric"])
    ours = Cell(wording.number(row["ours"]), spread, results.marks(row))
    return [
        Cell(source, row["note"]),
        Cell(row["label"], _widths(configuration)),
        Cell(wording.number(row["published"]), f"{model}, {row['published_dataset']}"),
        ours if row["n"] else hole_cell(configuration),
        Cell(wording.number(row["difference"], "+.2f"), tone="" if tone else "quiet"),
        Cell(SIGNS.get(tone, "") + verdict, beside, tone=tone or "quiet"),
    ]


def _widths(row: dict[str, Any]) -> str:
    if row["method"] == "float":
        return ""
    acts = "float activations" if row["act_bits"] == FLOAT_BITS else f"activations {row['act_bits']} bits"
    return f"weights {wording.bits(row['weight_bits'])} bits, {acts}"


def switches(results: Results) -> Section | None:
    """The waterfall of an explain sweep: what each switch between published and corrected costs."""
    if results.chain is None or not len(results.chain):
        return None
    alt = "Top-1 after each switch from a published procedure to a corrected one. The tables below hold the numbers."
    caption = (
        "Changes are from the line above, of the first from the float network, paired image by image, with a 95 % "
        "interval; p is the exact McNemar test's."
    )
    figure = waterfall.figure(results.chain, results.float_top1)
    parts: list[Part] = [Picture("waterfall", figure, alt, caption)]
    columns = [Column("switch"), *(Column(title, True) for title in ("top-1 %", "change", "95 %", "p"))]
    for _, chain in results.chain.groupby("chain"):
        first = chain.iloc[0]
        source = f", published as {first['published']}" if first["published"] else ""
        rows = [
            [Cell(switch), *(Cell(text.replace("-", wording.MINUS)) for text in rest)]
            for switch, *rest in map(ablation_table.cells, chain.to_dict("records"))
        ]
        parts.append(Table(f"{ablation.title(first)}{source}", columns, rows, {}))
    files = {
        "steps.csv": results.chain.to_csv(index=False),
        "steps.md": ablation_table.markdown(results.chain),
    }
    return Section("switches", "What each switch costs", parts, files)


def training(results: Results) -> Section | None:
    """Loss and top-1 by epoch, where runs train."""
    if not results.curves:
        return None
    alt = "Training loss and test top-1 by epoch: for each method the median of its runs, and the band they lie in."
    caption = (
        "Line: median of the runs; band: from the smallest to the largest. Values that are not finite are left out; "
        "the last epoch is what the tables show, not the best."
    )
    figure = training_curves.figure(results.marked, results.curves)
    losses, tops = (
        training_curves.bands(results.marked, results.curves, metric) for metric in training_curves.SHOWN
    )
    rows = [
        [
            Cell(loss.label),
            Cell(f"{loss.n:,}"),
            Cell(f"{len(loss.epochs):,}"),
            Cell(wording.number(float(loss.median[-1]), ".4f")),
            Cell(wording.number(float(top1.median[-1]))),
            Cell(wording.number(float(np.nanmax(top1.median))) if np.isfinite(top1.median).any() else ""),
        ]
        for loss, top1 in zip(losses, tops, strict=True)
    ]
    titles = ("n", "epochs", "last training loss, median", "last top-1 %, median", "best epoch's")
    columns = [Column("runs"), *(Column(title, True) for title in titles)]
    table = Table("Where the curves end", columns, rows, {})
    return Section("training", "Training curves", [Picture("curves", figure, alt, caption), table])


def measured(results: Results) -> Section:
    """On what, how often, where, with what and for how long."""
    parts: list[Part] = [
        Facts([*_amounts(results), *_origins(results.done)]),
        Lines([HOW]),
    ]
    if results.source != JOURNALS:
        source = "MLflow" if results.source == MLFLOW else "a table of runs"
        note = (
            f"This page was made from {source}. What only the run folders hold is left out: switches paired "
            "image by image, layers, confused classes, and links to the folders."
        )
        parts.append(Lines([note]))
    return Section("measured", "How it was measured", parts)


def _amounts(results: Results) -> list[Fact]:
    """How many runs of what, how many attempts, and how long they took."""
    facts, marked = [], results.marked
    for title, group in by_network(marked):
        mine = group[group["state"] == "done"]
        seeds = ", ".join(str(seed) for seed in sorted(group["seed"].unique())[:20])
        images = wording.distinct(f"{counted(int(count), 'test image')}" for count in mine["test_images"])
        detail = f"seeds {seeds}; {images or 'no finished run'}"
        facts.append(Fact(title, f"{len(mine):,} of {counted(len(group), 'run')}", detail))
    by_device = marked.groupby(marked["device"].fillna("unknown"))["run_seconds"].sum()
    spent = (f"{wording.hours(seconds)} on {device}" for device, seconds in by_device.items() if seconds)
    return [
        *facts,
        Fact("Attempts", f"{int(marked['attempts'].sum()):,}", "starts of a run, those that failed included"),
        Fact("Time of all attempts", wording.hours(float(marked["run_seconds"].sum())), "; ".join(spent)),
    ]


def _origins(done: pd.DataFrame) -> list[Fact]:
    """With what the finished runs were made."""
    if not len(done):
        return []
    checksums = [value[:16] if isinstance(value, str) else "not recorded" for value in done["test_sha256"]]
    return [
        Fact("Device", wording.distinct(done["device"])),
        Fact("Versions", wording.distinct(done["versions"])),
        Fact("Commit", wording.distinct(map(wording.commit, done["commit"], done["dirty"]))),
        Fact("Test data, SHA-256", wording.distinct(checksums)),
    ]
