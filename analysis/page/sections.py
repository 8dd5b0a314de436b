"""The sections of the report between its headline and its table of runs: each a function of the results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare import agreement, pareto
from analysis.compare.configurations import FLOAT_BITS, hole
from analysis.draw import training_curves, waterfall
from analysis.draw.cost import point
from analysis.page.html import picture
from analysis.page.parts import Cell, Column, Fact, Facts, Lines, Part, Section, Table
from analysis.report import ablation_table, wording
from analysis.report.results import JOURNALS, MLFLOW, Results

TONES = dict(zip(agreement.JUDGED, ("good", "bad", "good", "bad", "wait"), strict=True))
SIGNS = {"good": "✓ ", "bad": "✗ ", "wait": "≠ "}
PUBLISHED_COLUMNS = (
    Column("source"),
    Column("re-run as"),
    Column("published %", True),
    Column("ours %", True),
    Column("difference", True),
    Column("verdict"),
)


def published(found: Results) -> Section:
    """Every published number beside our own, with a verdict; those that the sweep does not re-run are named."""
    met = found.comparison[found.comparison["configuration"].notna()].to_dict("records")
    by_configuration = {row["configuration"]: row for row in found.summary.to_dict("records")}
    notes: dict[str, str] = {}
    rows = [_published(row, by_configuration[row["configuration"]], found, notes) for row in met]
    absent = found.comparison[found.comparison["configuration"].isna()]
    parts: list[Part] = [Lines([f"{agreement.DEFINITION} Behind the ±: how far they may differ."])]
    if rows:
        parts.append(Table("Published numbers and the runs that repeat them", PUBLISHED_COLUMNS, rows, notes))
    if len(absent):
        told = dict.fromkeys(f"{row['source']} {row['published_label']}" for row in absent.to_dict("records"))
        parts.append(Lines([f"Published, and not part of this sweep: {'; '.join(told)}."]))
    return Section("published", "Published and reproduced", parts)


def _published(
    row: dict[str, Any], configuration: dict[str, Any], found: Results, notes: dict[str, str]
) -> list[Cell]:
    marks = list(found.differences.marks.get(row["configuration"], ()))
    notes |= {mark: found.differences.words[mark] for mark in marks}
    source = f"{row['source']}, {row['metric'].replace('top', 'top-')}"
    remark = row["published_label"] + (", best epoch" if row["published_best"] else "")
    remark += f": {row['note']}" if row["note"] else ""
    word, named = row["verdict"], isinstance(row["published_model"], str)
    tolerance = "" if math.isnan(row["tolerance"]) else f"± {row['tolerance']:.2f}"
    if word == agreement.MEASURES_ELSE:
        tolerance = f"done as labelled: {wording.number(row['ours_labelled'])}"
    beside = wording.spread(configuration, row["metric"])
    ours = Cell(wording.number(row["ours"]), beside, marks) if row["n"] else _hole(configuration)
    return [
        Cell(source, remark),
        Cell(row["label"], _widths(configuration)),
        Cell(
            wording.number(row["published"]),
            f"{row['published_model'] if named else 'no model named'}, {row['published_dataset']}",
        ),
        ours,
        Cell(wording.number(row["difference"], "+.2f"), tone="" if word in TONES else "quiet"),
        Cell(SIGNS.get(TONES.get(word, ""), "") + word, tolerance, tone=TONES.get(word, "quiet")),
    ]


def _widths(row: dict[str, Any]) -> str:
    if row["method"] == "float":
        return ""
    acts = "float activations" if row["act_bits"] == FLOAT_BITS else f"activations {row['act_bits']} bits"
    return f"weights {wording.bits(row['weight_bits'])} bits, {acts}"


def accuracy(found: Results) -> Section:
    """Top-1 by width: the figure and the same as tables."""
    alt = (
        "Top-1 by the bits of a weight, one line for each method, with error bars over seeds. "
        "The table below holds the same numbers."
    )
    caption = (
        "Mean over seeds; bars: sample standard deviation. Hollow: published, of the same model and data."
    )
    parts: list[Part] = [picture(found.figures["accuracy"], "accuracy-figure", alt, caption)]
    parts += [_matrix(found, group, "top1", title) for title, group in _networks(found)]
    return Section("accuracy", "Accuracy by bits", parts)


def drop(found: Results) -> Section:
    """Drop from float: the figure and the same as tables."""
    alt = (
        "Drop of top-1 from float for every configuration, the smallest on top. "
        "The table below holds the same numbers."
    )
    caption = "Each run against the float network it started from, in points of top-1."
    quantized = [(title, group[group["method"] != "float"]) for title, group in _networks(found)]
    parts: list[Part] = [picture(found.figures["drop"], "drop-figure", alt, caption)]
    parts += [_matrix(found, group, "drop", title) for title, group in quantized if len(group)]
    return Section("drop", "Drop from float", parts)


def _networks(found: Results) -> list[tuple[str, pd.DataFrame]]:
    groups = found.summary.groupby(["model", "dataset"], sort=False)
    return [(f"{model} on {dataset}", group) for (model, dataset), group in groups]


def _matrix(found: Results, group: pd.DataFrame, metric: str, title: str) -> Table:
    """A row for each label and kind of activations, a column for each width of weights, a cell a configuration."""
    widths = sorted({int(width) for width in group["weight_bits"]}, reverse=True)
    lines: dict[tuple[str, str], dict[int, Cell]] = {}
    notes: dict[str, str] = {}
    for row in group.to_dict("records"):
        lines.setdefault((row["label"], _activations(row)), {})[row["weight_bits"]] = _cell(
            found, row, metric, notes
        )
    rows = [
        [Cell(label), Cell(acts, tone="quiet"), *(cells.get(width, Cell("")) for width in widths)]
        for (label, acts), cells in lines.items()
    ]
    columns = [
        Column("method"),
        Column("activations"),
        *(Column(wording.bits(width), True) for width in widths),
    ]
    what = "Top-1 (%)" if metric == "top1" else "Drop from float (points)"
    return Table(
        f"{what} by bits of a weight, {title}: mean ± sample standard deviation over n seeds, and its 95 % interval",
        columns,
        rows,
        notes,
    )


def _cell(found: Results, row: dict[str, Any], metric: str, notes: dict[str, str]) -> Cell:
    if not row["n"]:
        return _hole(row)
    if math.isnan(row[metric]):
        return Cell("no float run", wording.spread(row, metric), tone="wait")
    marks = found.differences.marks.get(row["configuration"], ())
    notes |= {mark: found.differences.words[mark] for mark in marks}
    return Cell(wording.number(row[metric]), wording.spread(row, metric), marks)


def _hole(row: dict[str, Any]) -> Cell:
    word = hole(row)
    return Cell(word, f"n 0 of {row['expected']}", tone="hole" if word == "failed" else "wait")


def _activations(row: dict[str, Any]) -> str:
    if row["act_bits"] == FLOAT_BITS:
        return "float"
    return "as weights" if row["act_bits"] == row["weight_bits"] else f"{row['act_bits']} bits"


def cost(found: Results) -> Section:
    """Accuracy against model size, and against measured time where the runs tell it."""
    points = found.summary
    alt = (
        "Top-1 against the size of the model, each configuration a point. {} The table below lists the front."
    )
    front = "A dashed line joins those that nothing smaller equals."
    parts: list[Part] = [
        picture(
            found.figures["size"], "size-figure", alt.format(front),
            "Against size as stored. Named: the front, which no other configuration beats in both.",
        ),
    ]  # fmt: skip
    for title, group in _networks(found):
        parts.append(_front(found, group, pareto.SIZE, "MB", f"The front of accuracy and size, {title}"))
    timed = pareto.latencies(found.marked, points)
    if len(timed):
        alt = alt.replace("the size of the model", "the time an image takes")
        caption = (
            "Against the time of the evaluation as it ran, one panel a device. A method that simulates integers in "
            "floating point pays for the simulation: this is the time of that, not of integer kernels."
        )
        figure = found.figures["time"]
        parts.append(
            picture(
                figure,
                "time-figure",
                alt.format("A dashed line joins those that nothing faster equals."),
                caption,
            )
        )
        for (model, dataset, device), group in timed.groupby(["model", "dataset", "device"], sort=False):
            name = f"The front of accuracy and time, {model} on {dataset}, {device}"
            parts.append(_front(found, group, pareto.TIME, "ms an image", name))
    return Section("cost", "Accuracy against cost", parts)


def _front(found: Results, points: pd.DataFrame, what: str, unit: str, caption: str) -> Table:
    rows: list[list[Cell]] = []
    notes: dict[str, str] = {}
    for row in pareto.front(points, what).to_dict("records"):
        marks = found.differences.marks.get(row["configuration"], ())
        notes |= {mark: found.differences.words[mark] for mark in marks}
        beside = wording.spread({"expected": row["n"]} | row)
        rows.append(
            [
                Cell(point(row)),
                Cell(f"{row[what]:.3g}"),
                Cell(wording.number(row["top1"]), beside, marks),
            ]
        )
    columns = [Column("configuration"), Column(unit, True), Column("top-1 %", True)]
    return Table(caption, columns, rows, notes)


def switches(found: Results) -> Section | None:
    """The waterfall of an explain sweep: what each switch between published and corrected costs."""
    if found.chain is None or not len(found.chain):
        return None
    alt = "Top-1 after each switch from a published procedure to a corrected one. The tables below hold the numbers."
    caption = (
        "Changes are from the line above, of the first from the float network, paired image by image, with a 95 % "
        "interval; p is the exact McNemar test's."
    )
    parts: list[Part] = [picture(found.figures["waterfall"], "switches-figure", alt, caption)]
    columns = [Column("switch"), *(Column(title, True) for title in ("top-1 %", "change", "95 %", "p"))]
    for _, chain in found.chain.groupby("chain"):
        first = chain.iloc[0]
        source = f" (published, {first['published']})" if first["published"] else ""
        told = [ablation_table.cells(row) for row in chain.to_dict("records")]
        rows = [
            [Cell(switch), *(Cell(text.replace("-", wording.MINUS)) for text in rest)]
            for switch, *rest in told
        ]
        parts.append(Table(f"{waterfall.title(first)}{source}", columns, rows, {}))
    return Section("switches", "What each switch costs", parts)


def training(found: Results) -> Section | None:
    """Loss and top-1 by epoch, where runs train."""
    if not found.curves:
        return None
    alt = "Training loss and test top-1 by epoch: for each method the median of its runs, and the band they lie in."
    caption = (
        "Line: median of the runs; band: from the smallest to the largest. Values that are not finite are left out; "
        "the last epoch is what the tables show, not the best."
    )
    rows = []
    for loss, top1 in zip(
        *(training_curves.bands(found.marked, found.curves, name) for name in training_curves.SHOWN),
        strict=True,
    ):
        values = [
            f"{len(loss.epochs):,}",
            wording.number(float(loss.median[-1]), ".4f"),
            wording.number(float(top1.median[-1])),
            wording.number(float(np.nanmax(top1.median))) if np.isfinite(top1.median).any() else "",
        ]
        rows.append([Cell(loss.label), Cell(f"{loss.n:,}"), *map(Cell, values)])
    titles = ("n", "epochs", "last training loss, median", "last top-1 %, median", "best epoch's")
    columns = [Column("runs"), *(Column(title, True) for title in titles)]
    table = Table("Where the curves end", columns, rows, {})
    return Section(
        "training",
        "Training curves",
        [picture(found.figures["curves"], "curves-figure", alt, caption), table],
    )


def measured(found: Results) -> Section:
    """On what, how often, where, with what and for how long."""
    done, marked = found.done, found.marked
    facts = []
    for (model, dataset), group in marked.groupby(["model", "dataset"], sort=False):
        mine = group[group["state"] == "done"]
        seeds = ", ".join(str(seed) for seed in sorted(group["seed"].unique())[:20])
        images = wording.counted(f"{int(count):,} test images" for count in mine["test_images"])
        detail = f"seeds {seeds}; {images or 'no finished run'}"
        facts.append(Fact(f"{model} on {dataset}", f"{len(mine):,} of {wording.runs(len(group))}", detail))
    facts.append(
        Fact("Attempts", f"{int(marked['attempts'].sum()):,}", "starts of a run, those that failed included")
    )
    by_device = marked.groupby(marked["device"].fillna("unknown"))["run_seconds"].sum()
    spent = "; ".join(
        f"{wording.hours(seconds)} on {device}" for device, seconds in by_device.items() if seconds
    )
    facts.append(Fact("Time of all attempts", wording.hours(float(marked["run_seconds"].sum())), spent))
    if len(done):
        commits = [f"{c[:10]}{' with uncommitted changes' * (d is True)}" if isinstance(c, str) else None
                   for c, d in zip(done["commit"], done["dirty"], strict=True)]  # fmt: skip
        facts.append(Fact("Device", wording.counted(done["device"])))
        facts.append(Fact("Versions", wording.counted(done["versions"])))
        facts.append(Fact("Commit", wording.counted(commits)))
        sums = [value[:16] if isinstance(value, str) else "not recorded" for value in done["test_sha256"]]
        facts.append(Fact("Test data, SHA-256", wording.counted(sums)))
    lines = Lines(
        [
            "± is the sample standard deviation over n seeds; with one run there is none. An interval of 95 % is that "
            "of the mean over seeds by Student's t, or that of one run by its number of test images, whichever is "
            "wider. A run is evaluated after its last epoch, never at its best on the test images; a published number "
            "of a best epoch says so. runs.csv beside this page has every field of every run."
        ]
    )
    parts: list[Part] = [Facts(facts), lines]
    if found.source != JOURNALS:
        source = "MLflow" if found.source == MLFLOW else "a table of runs"
        parts.append(
            Lines(
                [
                    f"This page was made from {source}. What only the run folders hold is left out: switches paired "
                    "image by image, layers, confused classes, and links to the folders."
                ]
            )
        )
    return Section("measured", "How it was measured", parts)
