"""The integers of a quantized network: of each weight which, of each input to which it is rounded.

Asked of the arithmetic itself, not of the class that does it: a quantizer is tried on values around every level, and
a weight is divided by its step. What is no grid is refused, by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import by_channel, fake_quantize
from suite.networks.own_forward import has_own_forward
from suite.quantizers.layers import LAYERS, Quantized, stored_parameters
from suite.quantizers.quantizer import Quantizer
from suite.recipe.errors import SuiteError

ULPS = 2.0**-21
"""How far a weight may be from its integer times its step, by its largest magnitude: float32's own rounding."""


@dataclass(frozen=True)
class Levels:
    """x ~ (q - zero_point) * scale, q an integer in quant_min..quant_max."""

    scale: Tensor
    """float32 []."""
    zero_point: int
    quant_min: int
    quant_max: int
    bits: int

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        low, high = ((end - self.zero_point) * float(self.scale) for end in (self.quant_min, self.quant_max))
        return low, high


@dataclass(frozen=True)
class Integers:
    """A weight: w = q * scale. q int32 of its shape; scale float32, [] or one for each output channel."""

    q: Tensor
    scale: Tensor
    bits: int

    @property
    def value(self) -> Tensor:
        """float32, as the simulation has it."""
        return self.q.float() * by_channel(self.scale, self.q, 0)


class NoGridError(Exception):
    """The levels of a tensor are no evenly spaced integers; the message says why."""


class NoIntegersError(SuiteError):
    """No file of integers can be made of this network: its levels are no grid, or torch's exporter cannot export it.
    Its simulation is right all the same."""


def levels_of(quantizer: Quantizer) -> Levels:
    """Of a quantizer of a whole tensor. Raises NoGridError."""
    if getattr(quantizer, "mode", "frozen") == "dynamic":
        raise NoGridError("its range follows each batch; calibrate the method (feed=Calibration())")
    if getattr(quantizer, "mode", "frozen") == "observe":
        raise NoGridError("it has no range yet")
    scale, zero = (getattr(quantizer, name).detach().float() for name in ("scale", "zero_point"))
    if scale.numel() != 1 or zero.numel() != 1:
        raise NoGridError("it has a range for each channel, which no integer kernel takes for inputs")
    scale, point = scale.reshape(()), float(zero)
    if point != round(point):
        raise NoGridError(f"its zero point is {point:.4g}, no whole number")
    tried = _around(quantizer, int(point), scale)
    with torch.no_grad():
        rounded = quantizer(tried)
    q = torch.round(rounded / scale) + point
    low, high = int(q.min()), int(q.max())
    expected = fake_quantize(tried, scale, torch.tensor(point) if point else None, low, high)
    if not torch.equal(rounded, expected) or high - low >= 2**quantizer.grid.bits:
        raise NoGridError(f"its levels are not {2**quantizer.grid.bits} even ones")
    return Levels(scale, int(point), low, high, quantizer.grid.bits)


def _around(quantizer: Quantizer, zero_point: int, scale: Tensor) -> Tensor:
    """Values beside every level, and beyond both ends."""
    grid = quantizer.grid
    steps = torch.arange(grid.quant_min - 3, grid.quant_max + 4, dtype=torch.float32) - zero_point
    return ((steps[:, None] + torch.tensor([-0.49, -0.25, 0.0, 0.25, 0.49])) * scale).flatten()


def integers_of(layer: nn.Module) -> Integers | None:
    """Of the rounded weight of `layer`; None where it is float. Raises NoGridError."""
    noted = stored_parameters(layer).get("weight")
    if noted is None:
        return None
    weight = layer.weight.detach()  # type: ignore[operator]
    assert isinstance(weight, Tensor)
    bits, scale = noted.bits, noted.scale
    if scale is not None and (found := _whole(weight, scale.detach().float(), bits)) is not None:
        return found
    for scale in _steps(weight, bits):  # which sorts the whole weight
        if (found := _whole(weight, scale.detach().float(), bits)) is not None:
            return found
    raise NoGridError(f"no step was found of which all its values are multiples, {2**bits} at most")


def _whole(weight: Tensor, scale: Tensor, bits: int) -> Integers | None:
    """The weight as whole multiples of `scale`, where it is that."""
    if not bool((scale > 0).all()):
        return None
    shaped = by_channel(scale, weight, 0)
    q = torch.round(weight / shaped)
    exact = torch.equal(q * shaped, weight)
    near = bool((q * shaped - weight).abs().max() <= ULPS * weight.abs().max())
    if not (exact or near) or _most_levels(q) > 2**bits:
        return None
    return Integers(q.to(torch.int32), scale.clone(), bits)


def _most_levels(q: Tensor) -> int:
    """How many levels there are from a channel's lowest to its highest; those of odd integers alone are every second,
    as where zero lies between two levels (DoReFa)."""
    rows = q.reshape(len(q), -1)
    span = int((rows.amax(1) - rows.amin(1)).max())
    return span // (2 if bool((q % 2 == 1).all()) else 1) + 1


def _steps(weight: Tensor, bits: int) -> list[Tensor]:
    """The step of the whole weight, where it has one, and else of each output channel, found in its values."""
    whole = _step(weight.flatten(), bits)
    if whole is not None:
        return [weight.new_tensor(whole)]
    rows = [_step(row.flatten(), bits) for row in weight]
    return [] if None in rows else [weight.new_tensor(rows)]


def _step(values: Tensor, bits: int) -> float | None:
    """The largest step of which all `values` are whole multiples up to 2^bits; 1 where all are zero."""
    u = torch.unique(values.double().abs())
    u = u[u > 0]
    if not len(u):
        return 1.0
    if len(u) > 2**bits:
        return None
    gaps = torch.cat([u[:1], u.diff()])
    gap = float(gaps[gaps > 1e-5 * float(u[-1]) / 2**bits].min()) if len(gaps) else 0.0
    for parts in range(1, 17):
        step = gap / parts
        for reach in (2**6, 2**11, 2**17):  # refined by ever larger multiples, which tell it more exactly
            near = u[u <= reach * step]
            q = torch.round(near / step)
            if bool(q.any()):
                step = float((near * q).sum() / (q * q).sum())
        q = torch.round(u / step)
        if float((u / step - q).abs().max()) < 1e-2 and int(q.max()) <= 2**bits:
            return _nearest_float(u, q, step)
    return None


def _nearest_float(u: Tensor, q: Tensor, step: float) -> float:
    """The float32 step that gives the values bit by bit, where one does."""
    first = torch.tensor(step, dtype=torch.float32)
    tried = [first]
    for end in (0.0, torch.inf):
        one = first
        for _ in range(4):
            one = torch.nextafter(one, torch.tensor(end))
            tried.append(one)
    exact = [one for one in tried if torch.equal(q.float() * one, u.float())]
    return float(exact[0] if exact else first)


def refused(model: nn.Module) -> dict[str, str]:
    """The layers of `model` whose weight or input is on no grid, by name: why."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if callable(getattr(module, "weight", None)):
            found[name] = "it is one of torch.ao's packed integer modules, which hold no weight to export"
            continue
        if isinstance(module, LAYERS) and has_own_forward(module):
            found[name.removesuffix(".layer")] = f"{type(module).__name__} has a forward of its own"
            continue
        try:
            if isinstance(module, LAYERS):
                integers_of(module)
            if isinstance(module, Quantized) and module.input is not None:
                levels_of(module.input)
        except NoGridError as reason:
            found[name.removesuffix(".layer")] = str(reason)
    return found
