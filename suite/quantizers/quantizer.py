"""A fake quantizer of one tensor: observes, rounds, keeps its range."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import Grid, by_channel, fake_quantize, in_dtype
from suite.ranges.observers import Observer

Mode = Literal["observe", "track", "dynamic", "frozen"]


class Quantizer(nn.Module):
    """Watches a tensor and rounds it to `grid`: symmetric about zero, or affine with a zero_point.

    mode "observe": watch, and let pass unchanged (calibration).
    mode "track": while training watch and round, while evaluating round with the last range (QAT).
    mode "dynamic": watch and round, always.
    mode "frozen": round with the last range.
    With `unsigned`, where symmetric, a tensor that was never below zero gets the unsigned grid of as many bits, any
    other the narrow one. `steps` is that of Grid.symmetric.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        grid: Grid,
        observer: Observer,
        mode: Mode,
        symmetric: bool = True,
        axis: int | None = None,
        unsigned: bool = False,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.symmetric, self.axis, self.mode = grid, symmetric, axis, mode
        self.unsigned, self.steps = unsigned, steps
        self.observer: Observer | None = observer
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros(()))

    @property
    def repeats(self) -> bool:
        """Whether it keeps its input for the backward pass and gives the same for it again, so that what it gave need
        not be kept too."""
        return False

    def set_range(self, checked: bool = True) -> None:
        """Take scale and zero_point from the observer's range; `checked` asks whether it is one, which waits for
        the device."""
        assert self.observer is not None
        if self.unsigned:
            self._choose_grid(never_negative=bool(self.observer.low >= 0))
        answer = self.observer.range if checked else self.observer.limits
        self._take(*answer(self.grid), checked)

    def _choose_grid(self, never_negative: bool) -> None:
        if self.unsigned and self.symmetric:
            self.grid = Grid(self.grid.bits, signed=not never_negative, narrow=not never_negative)

    def _take(self, low: Tensor, high: Tensor, checked: bool = True) -> None:
        if self.symmetric:
            amax = torch.maximum(-low, high)
            self.scale, self.zero_point = self.grid.symmetric(amax, self.steps, checked)
        else:
            self.scale, self.zero_point = self.grid.affine(low, high, checked)

    def forward(self, x: Tensor) -> Tensor:
        """`x` of any shape and float dtype, watched and rounded as the mode says; in its shape and dtype. Raises
        SuiteError for a range that is not finite, but while training, where nothing waits for the device."""
        watches = self.mode in ("observe", "dynamic") or (self.mode == "track" and self.training)
        if watches:
            assert self.observer is not None
            self.observer(x)
        if self.mode == "observe":
            return x
        if watches:
            self.set_range(checked=not self.training)
        return self.rounded(x)

    def rounded(self, x: Tensor) -> Tensor:
        """`x` rounded in the range of now; in its shape and dtype."""
        return self._on_grid(x, self.scale)

    def _on_grid(self, x: Tensor, scale: Tensor) -> Tensor:
        zero_point = None if self.symmetric else self.zero_point
        return fake_quantize(x, scale, zero_point, self.grid.quant_min, self.grid.quant_max, self.axis)

    def set_bits(self, bits: int) -> None:
        """Another width, before anything was rounded."""
        self.grid = replace(self.grid, bits=bits)

    def settled(self, x: Tensor) -> Tensor:
        """`x`, a weight, watched once more and rounded with the range that results, which stays; in its shape and
        dtype. Raises SuiteError where it holds inf or NaN."""
        assert self.observer is not None
        self.observer(x)
        self.set_range()
        self.mode = "frozen"
        result: Tensor = self(x)
        return result

    def fix(self, low: Tensor, high: Tensor, never_negative: bool) -> None:
        """Round in this range from now on: low and high float32, [] or one a channel of `axis`; `never_negative` is
        what `unsigned` asks of the tensor. Raises SuiteError for a range that is not finite."""
        device = self.scale.device
        self._choose_grid(never_negative)
        self._take(low, high)
        self.scale, self.zero_point = self.scale.to(device), self.zero_point.to(device)
        self.mode, self.observer = "frozen", None

    def freeze(self) -> None:
        """Keep the range and forget the observer; one that follows each batch keeps following."""
        if self.mode == "observe":
            self.set_range()
        if self.mode != "dynamic":
            self.mode, self.observer = "frozen", None


class SizeKeeper(Quantizer):
    """Of a weight w, which is rounded to q in its range; then the step of each range is multiplied by
    sum(w w) / sum(q w), so that the part of w that is left in what it is rounded to has w's own size.

    Each weight keeps the integer that the range gave it, by the step `range_scale`. `scale` is what an integer stands
    for, once a weight was rounded. A range in which all is rounded to zero stays as it is.
    """

    range_scale: Tensor

    def __init__(self, *settings: Any, **named: Any) -> None:
        """As of Quantizer."""
        super().__init__(*settings, **named)
        self.register_buffer("range_scale", torch.ones(()))

    def _take(self, low: Tensor, high: Tensor, checked: bool = True) -> None:
        super()._take(low, high, checked)
        self.range_scale = self.scale

    def rounded(self, x: Tensor) -> Tensor:
        q = self._on_grid(x.float(), self.range_scale)
        with torch.no_grad():
            exact = x.double()
            whole, left = self._sum_of(exact * exact), self._sum_of(exact * q.double())
            kept = self.range_scale * torch.where(left > 0, whole / left, 1.0)
            numbers = torch.finfo(torch.float32)
            most = numbers.max / (self.grid.quant_max - self.grid.quant_min)
            self.scale = kept.clamp(numbers.tiny, most).float()
            ratio = by_channel(self.scale / self.range_scale, x, self.axis)
        # Rounded once more, each is its integer times the step to the last bit.
        return in_dtype(self._on_grid(q * ratio, self.scale), x.dtype)

    def _sum_of(self, x: Tensor) -> Tensor:
        """The sum of each range, [] or [channels]."""
        return (
            x.sum() if self.axis is None else x.transpose(0, self.axis).reshape(x.shape[self.axis], -1).sum(1)
        )
