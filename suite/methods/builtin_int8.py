"""PyTorch's own static int8 (source 002, "built-in"): fused Conv-BatchNorm-ReLU, real integer kernels, on the CPU.

torch.ao.quantization's FX mode: weights signed per output channel, activations unsigned per tensor by a histogram.
For x86 and fbgemm, torch's default puts activations on 128 of the 256 integers (`reduce_range`), so that sums of
products fit into 16 bits.

Where the source misleads: its observers saw one batch only (`feed=Calibration(images=128)` does so).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from suite.recipe import Calibration
from suite.recipe.errors import SuiteError, check_choice, first_line, not_finite
from suite.recipe.method import Feed, Method, Step
from suite.steps import RunCalibration

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.fx import GraphModule


@dataclass(frozen=True)
class BuiltinInt8(Method):
    """8 bits and no other width; `engine` is the library of kernels ("x86" for Intel and AMD, "qnnpack" for ARM)."""

    engine: Literal["x86", "fbgemm", "onednn", "qnnpack"] = "x86"
    feed: Calibration = field(default_factory=Calibration)

    name: ClassVar[str] = "builtin_int8"
    weight_bits: ClassVar[int] = 8
    act_bits: ClassVar[int] = 8

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, ("x86", "fbgemm", "onednn", "qnnpack"))

    @property
    def batch_norm(self) -> str:
        """Folded into the convolutions, which torch.ao does first."""
        return "folded"

    def steps(self) -> tuple[Step, ...]:
        """torch.ao's own three."""
        return PrepareFx(self.engine), RunCalibration(self.feed), ConvertFx(self.engine)


@dataclass(frozen=True)
class PrepareFx(Step):
    """A fused copy of the model on the CPU, with torch.ao's observers."""

    engine: str

    def check(self) -> None:
        """Raise SuiteError where this torch has no such engine."""
        import torch

        if self.engine not in torch.backends.quantized.supported_engines:
            raise SuiteError(
                f"this torch has no int8 engine {self.engine!r}; it has "
                f"{', '.join(torch.backends.quantized.supported_engines)}"
            )

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where torch.ao cannot make integers of such a network."""
        import copy

        import torch

        try:
            prepared = _prepared(copy.deepcopy(model).cpu().eval(), self.engine)
            with torch.no_grad():
                prepared(images)
                _converted(prepared, self.engine)(images)
        except Exception as error:  # of whatever torch.ao does with what it does not know
            raise _cannot(error) from error

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """A torch.fx graph module made of `model`. Raises SuiteError where torch.ao cannot make it."""
        from suite.quantizers.wrappers import OnCpu

        self.check()
        try:
            return OnCpu(_prepared(model.cpu().eval(), self.engine))
        except Exception as error:
            raise _cannot(error) from error


def _prepared(model: nn.Module, engine: str) -> GraphModule:
    import torch
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.observer import ObserverBase
    from torch.ao.quantization.quantize_fx import prepare_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao announces its removal at every call
        mapping = get_default_qconfig_mapping(engine)
        prepared: GraphModule = prepare_fx(model, mapping, (torch.zeros(1, 3, 32, 32),))
    for node in prepared.graph.nodes:
        if node.op == "call_module" and isinstance(
            observer := prepared.get_submodule(node.target), ObserverBase
        ):
            observer.register_forward_pre_hook(partial(_check_finite, f"the output of {node.args[0]}"))
    return prepared


def _converted(prepared: GraphModule, engine: str) -> GraphModule:
    import torch
    from torch.ao.quantization.quantize_fx import convert_fx

    torch.backends.quantized.engine = engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted: GraphModule = convert_fx(prepared)
    return converted


def _cannot(error: Exception) -> SuiteError:
    return SuiteError(
        f"torch.ao.quantization cannot make an int8 network of this one: {first_line(error)}; leave builtin_int8 out "
        f"for it"
    )


@dataclass(frozen=True)
class ConvertFx(Step):
    """The model on integer kernels."""

    engine: str

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """What torch.ao makes of the calibrated `model`. Raises SuiteError where it cannot."""
        from suite.quantizers.wrappers import OnCpu

        feed.before_rounding(model)
        prepared: GraphModule = model.model  # type: ignore[assignment]
        try:
            return OnCpu(_converted(prepared, self.engine))
        except Exception as error:
            raise _cannot(error) from error


def _check_finite(what: str, observer: nn.Module, args: tuple[Tensor]) -> None:
    """Raise SuiteError for what torch.ao's observers pass over, with a warning at most."""
    low, high = args[0].aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise not_finite(what)
