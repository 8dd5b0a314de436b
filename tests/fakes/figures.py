"""Sweeps to draw, figures of every kind, and the texts of a figure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import BboxBase

from analysis.draw import accuracy, confusion, cost, drop, layers, waterfall
from analysis.read import published
from analysis.report import results
from fakes import explained, layer_records
from fakes.runs_folder import finish, plan, stage
from suite.sweeps.stored import save_sweep


def twenty(runs: Path) -> None:
    """Twenty methods at four widths and three seeds, from good to chance."""
    stages = []
    for seed in range(3):
        start = stage("float", 32, seed)
        finish(runs, start, 91.7 + seed / 10)
        stages.append(start)
        for place, bits in itertools.product(range(20), (8, 6, 4, 3)):
            names = [*published.load().methods, *(f"method_{place:02}" for place in range(20))]
            stages.append(stage(names[place], bits, seed, start))
            finish(runs, stages[-1], max(10.0, 91.9 - place * (8 - bits) ** 2 / 6 + seed / 10))
    plan(runs, *stages)


def every_kind(runs: Path) -> list[Figure]:
    """A figure of each kind that shows accuracies, layers or steps."""
    twenty(runs / "many")
    many = results.load(runs / "many", "small")
    start = stage("float", 32, 0)
    quantized = stage("qat_symmetric", 4, 0, start)
    plan(runs / "few", start, quantized)
    for one in (start, quantized):
        finish(runs / "few", one, 90.0)
        layer_records.record(runs / "few", one)
    few = results.load(runs / "few", "small")
    listed = explained.stages("002")
    for wrong, step in enumerate(listed):
        explained.finish(runs / "steps", step, np.arange(1000) >= 9 * wrong)
    save_sweep(runs / "steps", "explain-002", {}, listed)
    steps = results.load(runs / "steps", "explain-002")
    assert steps.chain is not None
    return [
        accuracy.figure(many.summary, many.comparison),
        drop.figure(many.marked, many.summary, many.comparison),
        cost.figure(many.summary, "model_size_mb"),
        cost.figure(few.summary, "model_size_mb"),
        layers.heat_map(few.evidence.shown, few.evidence.layers),
        layers.histograms(few.evidence.shown, few.evidence.layers),
        confusion.figure(few.evidence.confusions),
        waterfall.figure(steps.chain, steps.float_top1),
    ]


def texts(figure: Figure) -> list[Text]:
    """The texts that are drawn, as they lie in the figure after drawing."""
    figure.savefig("/dev/null", format="png")
    beyond = _ticks_beyond_the_limits(figure)
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and id(text) not in beyond]
    return [text for text in found if text.get_text() and text.get_visible()]


def overlapping(boxes: Sequence[BboxBase]) -> list[tuple[int, int]]:
    """Which two of the boxes, by their places, have a point in common."""
    low, high = (np.array([getattr(box, end) for box in boxes]) for end in ("min", "max"))
    meet = ((low[:, None] <= high) & (low <= high[:, None])).all(-1)
    return [(int(one), int(other)) for one, other in np.argwhere(np.triu(meet, 1))]


def _ticks_beyond_the_limits(figure: Figure) -> set[int]:
    """The ids of labels that exist and are not drawn, those of an earlier layout among them."""
    every, drawn = set(), set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        every |= {id(tick.label1) for tick in (*axis.majorTicks, *axis.minorTicks)}
        ticks = (*axis.get_major_ticks(), *axis.get_minor_ticks())
        drawn |= {id(tick.label1) for tick in ticks if low <= tick.get_loc() <= high}
    return every - drawn


def apart_and_inside(figure: Figure) -> list[str]:
    """The texts of a drawn figure, of which no two overlap and none leaves the figure."""
    found = texts(figure)
    boxes = [Text.get_window_extent(text) for text in found]
    assert [(found[a].get_text(), found[b].get_text()) for a, b in overlapping(boxes)] == []
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in zip(found, boxes, strict=True):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()
    return [text.get_text() for text in found]
