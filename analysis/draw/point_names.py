"""Short names beside points: none over another name, a point or a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from analysis.draw.style import QUIET

Place = tuple[float, float]

CLOSE = 9
"""A name farther from its point than this many points is joined to it by a line."""
OFFSETS = [
    (x * far, y * far) for far in (0.6, 1, 1.8, 2.8, 4) for x, y in ((8, -8), (-8, 8), (8, 8), (-8, -8))
]
"""Where the name of a point may be drawn, in points from it: the nearest offset that is free is used."""
MARKER = 8
"""Pixels of a side of the square that a point takes."""


def name(
    axes: Axes, named: Sequence[tuple[str, Place]], points: Sequence[Place], lines: Sequence[Sequence[Place]]
) -> None:
    """Write each name beside its point where it covers no other name, none of `points`, none of `lines` and no line
    from a name to its point; one without room stays unnamed. Places are those of the data; the figure's layout is
    fixed."""
    frame, to_pixels = axes.get_window_extent(), axes.figure.dpi / 72
    dots = [_box(x - MARKER / 2, y - MARKER / 2, MARKER, MARKER) for x, y in _pixels(axes, points)]
    paths = [Path(_pixels(axes, line)) for line in lines]
    names: list[Bbox] = []
    leaders: list[Path] = []
    for words, place in named:
        text = _note(axes, words, place, *OFFSETS[0])
        size = text.get_window_extent()
        text.remove()
        ((left, bottom),) = _pixels(axes, [place])
        others = [dot for dot in dots if not dot.contains(left, bottom)]
        for x, y in OFFSETS:
            corner = left + x * to_pixels, bottom + y * to_pixels
            x0, y0 = corner[0] - size.width * (x < 0), corner[1] - size.height * (y < 0)
            box = _box(x0, y0, size.width, size.height).padded(1)
            is_inside = (
                frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            )
            leader = Path([(left, bottom), ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)])
            is_covered = any(box.overlaps(other) for other in (*dots, *names))
            is_crossed = any(path.intersects_bbox(box, filled=False) for path in (*paths, *leaders))
            is_crossed |= any(leader.intersects_bbox(other, filled=False) for other in (*names, *others))
            if is_inside and not is_covered and not is_crossed:
                _note(axes, words, place, x, y)
                names.append(box)
                leaders += [leader] * (abs(x) > CLOSE)
                break


def _note(axes: Axes, words: str, place: Place, x: float, y: float) -> Annotation:
    arrow = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkB": 3} if abs(x) > CLOSE else None
    return axes.annotate(
        words, place, xytext=(x, y), textcoords="offset points", fontsize=8, ha="left" if x > 0 else "right",
        va="bottom" if y > 0 else "top", arrowprops=arrow, zorder=5,
    )  # fmt: skip


def _box(x: float, y: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(x, y, width, height)


def _pixels(axes: Axes, places: Sequence[Place]) -> list[Place]:
    if not len(places):
        return []
    return [(float(x), float(y)) for x, y in axes.transData.transform(np.array(places))]
