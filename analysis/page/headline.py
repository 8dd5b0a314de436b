"""The first screen of the report: what was measured, the main numbers, and what to know before reading on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.compare import agreement
from analysis.compare.configurations import FLOAT_BITS, by_network
from analysis.page.parts import Fact, Facts, Lines, Part, Section
from analysis.report import wording
from analysis.report.results import Results
from suite.record.words import counted

POINT = 1.0
"""The drop, in points of top-1, up to which a width counts as kept."""
STATES = ("failed", "running", "stopped", "pending")
PROBLEMS = 5


def section(results: Results) -> Section:
    """Sentences, tiles, and what is missing or not comparable."""
    parts: list[Part] = [Lines([_measured(results)]), *_alerts(results)]
    networks = by_network(results.summary)
    facts = [
        _network(rows.to_dict("records"), title if len(networks) > 1 else "") for title, rows in networks
    ]
    of_sweep = [*_verdicts(results), _runs(results)]
    # One network has its numbers and the two of the sweep side by side.
    groups = [[*facts[0], *of_sweep]] if len(facts) == 1 else [*facts, of_sweep]
    parts += [Facts(group, large=True) for group in groups]
    return Section("headline", "In short", parts)


def _measured(results: Results) -> str:
    summary = results.summary[results.summary["method"] != "float"]
    networks = ", ".join(title for title, _ in by_network(results.summary))
    widths = sorted(set(summary["weight_bits"]) - {FLOAT_BITS}, reverse=True)
    span = f", weights of {', '.join(map(wording.bits, widths))} bits" if widths else ""
    return (
        f"{counted(summary['method'].nunique(), 'quantization method')} in "
        f"{counted(len(summary), 'configuration')}{span}, on {networks}. Top-1 is the share of test images "
        "whose most probable class is right; a drop is against the float network of the run, in points. "
        "A mean is followed by ± its standard deviation over n seeds and, in brackets, its 95 % interval."
        f"{wording.chosen_on(summary['method'])}"
    )


def _alerts(results: Results) -> list[Lines]:
    lines = []
    counts = {state: int((results.marked["state"] == state).sum()) for state in STATES}
    if any(counts.values()):
        missing = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        lines.append(
            f"{len(results.marked) - len(results.done)} of {counted(len(results.marked), 'run')} have no result: "
            f"{missing}. Their cells in the tables say so."
        )
    if results.differences.words:
        lines.append(
            "Some numbers were made under other conditions than the rest of their table. They carry a letter, "
            "which is explained below the table."
        )
    infinite = results.done[results.done["loss"].isna()]
    if len(infinite):
        named = sorted({row["label"] for row in infinite.to_dict("records")})
        lines.append(f"{wording.INFINITE}: {counted(len(infinite), 'run')} of {'; '.join(named)}.")
    problems = list(results.marked["problem"].dropna())
    lines += problems[:PROBLEMS]
    if len(problems) > PROBLEMS:
        lines.append(
            f"{len(problems) - PROBLEMS} more run folders cannot be read; the table of runs names each."
        )
    return [Lines(lines, alert=True)] if lines else []


def _network(rows: Sequence[dict[str, Any]], name: str) -> list[Fact]:
    facts = []
    prefix = f"{name}: " if name else ""
    floats = [row for row in rows if row["method"] == "float" and row["n"]]
    for row in floats[:1]:
        images = f"{counted(int(row['test_images']), 'test image')}"
        facts.append(
            Fact(f"{prefix}Float top-1", f"{row['top1']:.2f} %", f"{wording.spread(row)} · {images}")
        )
    for title, quantized in (("weights alone", False), ("weights and activations", True)):
        mine = [
            row for row in rows if (row["act_bits"] < FLOAT_BITS) == quantized and row["method"] != "float"
        ]
        if any(row["n"] for row in mine):
            facts.append(_narrowest(mine, f"{prefix}Bits of {title} for a drop of at most {POINT:g} point"))
    return facts


def _narrowest(rows: Sequence[dict[str, Any]], term: str) -> Fact:
    kept = [row for row in rows if not math.isnan(row["drop"]) and row["drop"] <= POINT]
    if not kept:
        tried = [row for row in rows if row["n"]]
        return Fact(term, "none", f"of {counted(len(tried), 'configuration')} with a result")
    best = min(kept, key=lambda row: (max(row["weight_bits"], row["act_bits"] % FLOAT_BITS), row["drop"]))
    value = f"{wording.bits(best['weight_bits'])} bits"
    if best["act_bits"] not in (FLOAT_BITS, best["weight_bits"]):
        value = f"{best['weight_bits']} and {best['act_bits']} bits"
    return Fact(
        term, value, f"{best['label']}: drop {wording.number(best['drop'])} {wording.spread(best, 'drop')}"
    )


def _verdicts(results: Results) -> list[Fact]:
    """How many published numbers are reproduced; nothing where none can be judged."""
    verdicts = results.comparison.drop_duplicates("id") if len(results.comparison) else results.comparison
    judged = verdicts[verdicts["verdict"].isin(agreement.JUDGED)]
    if not len(judged):
        return []
    good = int(judged["verdict"].isin([agreement.REPRODUCED, agreement.DROP_REPRODUCED]).sum())
    other = int((judged["verdict"] == agreement.MEASURES_ELSE).sum())
    detail = f"that can be judged, of {len(verdicts)} published; {other} of them measure something else"
    return [Fact("Published numbers reproduced", f"{good} of {len(judged)}", detail)]


def _runs(results: Results) -> Fact:
    spent = wording.hours(float(results.marked["run_seconds"].sum()))
    return Fact("Runs finished", f"{len(results.done):,} of {len(results.marked):,}", f"{spent} of computing")
