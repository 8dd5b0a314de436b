"""The answers of a toolkit and of the suite, quantity by quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.conformance import explain
from benchmarks.conformance.explain import EQUAL, Verdict, defect
from benchmarks.conformance.settings import NotOfferedError, Range, Setting, Toolkit
from benchmarks.conformance.toolkits import TOOLKITS

SMALLEST_SCALE = 2.0**-125
"""Half of a smaller one has a reciprocal beyond float32, so nothing is clipped there."""


@dataclass(frozen=True)
class Compared:
    """One pair of answers. of: "scale", "zero point", "grid", or with `part` "codes", "clipped share", "gradient"."""

    toolkit: str
    tensor: str
    setting: Setting
    of: str
    verdict: Verdict
    part: str = ""
    x: Tensor | None = None
    """The few values that show a difference, [channels, values], in `range_` where they were rounded."""
    range_: Range | None = None


def gradient(toolkit: Toolkit, x: Tensor, range_: Range, setting: Setting) -> tuple[Tensor, Tensor]:
    """(output, gradient of its sum), both in the shape of `x`."""
    leaf = x.clone().requires_grad_()
    output = toolkit.fake(leaf, range_, setting)
    output.sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return output.detach(), leaf.grad


def compared(toolkit: Toolkit, tensor: str, x: Tensor, setting: Setting) -> Iterator[Compared]:
    """All pairs of a tensor under a setting. Raises NotOfferedError where the toolkit has no such setting."""
    of = Compared(toolkit.name, tensor, setting, "", EQUAL)
    ours = TOOLKITS["ours"].range(x, setting)
    try:
        theirs = toolkit.range(x, setting)
    except NotOfferedError:
        raise
    except Exception as error:
        yield replace(of, of="scale", verdict=defect(f"{type(error).__name__}: {_line(error)}"), x=x)
        return
    yield from _ranges(of, x, setting, ours, theirs)
    if not bool((theirs.scale.isfinite() & (theirs.scale >= 0)).all()):
        return  # Nothing can be rounded in such a range; that it is one was counted as a defect of the scale.
    theirs = replace(theirs, scale=theirs.scale.clamp_min(torch.finfo(torch.float32).tiny))
    parts = {"whole": theirs}
    if bool((theirs.scale > SMALLEST_SCALE).all()):
        parts["half"] = replace(theirs, scale=theirs.scale / 2)
    for part, range_ in parts.items():
        yield from _rounded(replace(of, part=part, range_=range_), toolkit, x, setting, range_)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:160]


def _ranges(of: Compared, x: Tensor, setting: Setting, ours: Range, theirs: Range) -> Iterator[Compared]:
    def shown(quantity: str, verdict: Verdict, where: Tensor | None = None) -> Compared:
        return replace(of, of=quantity, verdict=verdict, x=_ends(x, setting, where))

    grids = [(range_.quant_min, range_.quant_max) for range_ in (ours, theirs)]
    yield shown("grid", explain.grid(*grids))
    yield shown("scale", explain.scale(x, setting, ours, theirs), ours.scale != theirs.scale)
    yield shown("zero point", explain.zero_point(x, setting, ours, theirs), _offset(ours) != _offset(theirs))


def _offset(range_: Range) -> Tensor:
    return range_.zero_point - range_.quant_min


def _ends(x: Tensor, setting: Setting, where: Tensor | None) -> Tensor:
    """The extremes of the channel that differs first and, since some rules ask for it, of the widest, [1 or 2, 2]."""
    rows = torch.stack([x.amin(1), x.amax(1)], dim=1)
    if not setting.per_channel:
        return torch.stack([rows[:, 0].min(), rows[:, 1].max()])[None]
    first = 0 if where is None or not bool(where.any()) else int(where.flatten().int().argmax())
    widest = int(rows.abs().amax(1).argmax())
    return rows[[first, widest]]


def _rounded(
    of: Compared, toolkit: Toolkit, x: Tensor, setting: Setting, range_: Range
) -> Iterator[Compared]:
    ours = gradient(TOOLKITS["ours"], x, range_, setting)
    try:
        theirs = gradient(toolkit, x, range_, setting)
    except Exception as error:
        yield replace(of, of="codes", verdict=defect(f"{type(error).__name__}: {_line(error)}"), x=x)
        return
    grid = explain.Position(x, range_, setting.per_channel)
    judges: dict[str, tuple[Callable[..., tuple[Verdict, Tensor]], int]]
    judges = {
        "codes": (explain.codes, 0),
        "clipped share": (explain.clipped, 0),
        "gradient": (explain.mask, 1),
    }
    for quantity, (judge, which) in judges.items():
        verdict, differs = judge(grid, ours[which], theirs[which])
        found = replace(of, of=quantity, verdict=verdict)
        yield found if verdict == EQUAL else _smallest(found, x, setting, range_, differs)


def _smallest(found: Compared, x: Tensor, setting: Setting, range_: Range, differs: Tensor) -> Compared:
    """The first value that differs and its channel's range: all that the difference needs."""
    row, column = divmod(int(differs.flatten().int().argmax()), x.shape[1])
    one = range_
    if setting.per_channel:
        one = replace(range_, scale=range_.scale[row : row + 1], zero_point=range_.zero_point[row : row + 1])
    return replace(found, x=x[row : row + 1, column : column + 1], range_=one)
