"""The table that a README shows: the methods that do what their name says, at the widths that tell them apart."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from analysis.compare.configurations import FLOAT_BITS
from analysis.compare.roles import is_sound
from analysis.report import wording
from analysis.report.results import Results
from analysis.report.tables import grid
from analysis.report.wording import number
from suite.record.words import counted

WIDTHS = (8, 6, 4, 3)
PARTS = (("weights and inputs rounded", False), ("weights alone rounded", True))


def table(found: Results) -> str:
    """Markdown: for each network a row a sound method and a column a width, the best of each width in bold, and below
    it a line on how it was measured.

    Sound are the configurations that `published.toml` does not count among a source's defects, and treatments of
    BatchNorm or of the first and the last layer are left to tables of their own.
    """
    summary = found.summary[(found.summary["n"] > 0) & found.summary.apply(_is_shown, axis=1)]
    texts = []
    for (model, dataset), group in summary.groupby(["model", "dataset"], sort=False):
        floats = group[group["weight_bits"] == FLOAT_BITS]
        names = _names(group)
        columns = [(f"top-1 %, {model} on {dataset}", False), *((f"{width} bits", True) for width in WIDTHS)]
        rows = [["float", *(number(value) for value in floats["top1"][:1]), *[""] * (len(WIDTHS) - 1)]]
        for title, is_alone in PARTS:
            part = group[((group["act_bits"] == FLOAT_BITS) == is_alone) & group["weight_bits"].isin(WIDTHS)]
            if len(part):
                rows += [[f"*{title}*", *[""] * len(WIDTHS)], *_rows(part, names)]
        texts.append(f"{grid(rows, columns)}\n\n{_conditions(found, group)}")
    return "\n\n".join(texts) + "\n"


def _is_shown(row: pd.Series[Any]) -> bool:
    parameters = json.loads(row["configuration"])
    ends_as_the_rest = parameters.get("edges", "as the rest") in ("as the rest", "last layer float")
    batch_norm_kept = parameters.get("batch_norm") not in ("re-estimated", "frozen")
    return ends_as_the_rest and batch_norm_kept and is_sound(row)


def _names(group: pd.DataFrame) -> dict[str, str]:
    """The name of each label: the method's own where it has one row of its kind only."""
    labels = group.groupby("method")["label"].unique()
    return {
        label: method if len(found) == 1 else label for method, found in labels.items() for label in found
    }


def _rows(part: pd.DataFrame, names: dict[str, str]) -> list[list[str]]:
    best = part.groupby("weight_bits")["top1"].max()
    rows = []
    for label, line in part.groupby("label", sort=False):
        found = dict(zip(line["weight_bits"], line["top1"], strict=True))
        cells = [number(found[width]) if width in found else "" for width in WIDTHS]
        marked = [
            f"**{cell}**" if cell and cell == number(best[width]) else cell
            for cell, width in zip(cells, WIDTHS, strict=True)
        ]
        rows.append([names[label], *marked])
    return rows


def _conditions(found: Results, group: pd.DataFrame) -> str:
    """One line: images, runs, the widest interval, devices, torch."""
    half = pd.concat([group["top1_high"] - group["top1"], group["top1"] - group["top1_low"]]).max()
    done = found.done
    devices = wording.devices(done["device"].dropna().unique())
    torch = sorted(
        {part for versions in done["versions"].dropna() for part in versions.split(", ") if "torch " in part}
    )
    counts = sorted({int(n) for n in group["n"]})
    return (
        f"{counted(int(group['test_images'].max()), 'test image')}; a cell is the mean of {_range(counts)}; 95 % "
        f"intervals are at most ±{half:.2f} points; best of each width in bold; {devices}; "
        f"{', '.join(torch)}.{wording.chosen_on(group['method'])}"
    )


def _range(counts: list[int]) -> str:
    last = counted(counts[-1], "run")
    return last if len(counts) == 1 else f"{counts[0]} to {last}"
