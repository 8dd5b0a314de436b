"""Quantizers go in, and, at the end, the rounded weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from suite.recipe.errors import SuiteError, check_bits, check_choice, check_widths
from suite.recipe.method import Feed, Step
from suite.recipe.settings import FLOAT_BITS, NEW
from suite.steps.rounding import LeastError, Uniform

if TYPE_CHECKING:
    from torch import Tensor, nn

    from suite.quantizers.quantizer import Quantizer


class Rounding(Protocol):
    """How the tensors of one kind are rounded."""

    def quantizer(self, bits: int) -> Quantizer:
        """A quantizer for one tensor."""


Carried = Literal["float", "rounded"]
"""What an identity shortcut carries: floats, or what was rounded once for the layers of the block and for it."""

LayerWidths = tuple[tuple[str, int, int], ...]
"""(name of a layer, bits of its weight, bits of its input) of each layer that differs from the rest."""


@dataclass(frozen=True)
class Insert(Step):
    """A quantizer on the input and one on the weight of every layer that multiplies; 32 bits are none.

    relu_and_pool: also on the inputs of ReLU and average pooling, as source 002 has it.
    linear: also on linear layers. first_input: also on the image itself.
    first_last: the width of weight and input of the first and the last layer, where it differs, and first_last_inputs
    that of their inputs alone; image_bits: that of the image; `by_layer` names others, and comes after. training: the
    model is left in training mode.
    carried: "rounded" puts one quantizer before each residual block, in the place of those of the layers that read
    what the block gets, so that a shortcut carries rounded values too, as in the code of BRECQ, QDrop and GDFQ.
    """

    weights: Rounding = field(default_factory=lambda: Uniform(LeastError(), per="channel"))
    inputs: Rounding = field(default_factory=Uniform)
    weight_bits: int = 8
    act_bits: int = 8
    relu_and_pool: bool = False
    linear: bool = True
    first_input: bool = True
    first_last: int | None = None
    by_layer: LayerWidths = ()
    training: bool = False
    first_last_inputs: int | None = field(default=None, metadata=NEW)
    carried: Carried = field(default="float", metadata=NEW)
    image_bits: int | None = field(default=None, metadata=NEW)

    def __post_init__(self) -> None:
        check_widths(self, FLOAT_BITS)
        check_bits("first_last", self.first_last, None, FLOAT_BITS)
        check_bits("first_last_inputs", self.first_last_inputs, None, FLOAT_BITS)
        check_bits("image_bits", self.image_bits, None, FLOAT_BITS)
        floats = FLOAT_BITS in (self.act_bits, self._ends[1]) or not self.first_input
        if self.image_bits is not None and floats:
            raise SuiteError(
                f"image_bits {self.image_bits} has no effect where the image stays float; leave it out"
            )
        check_choice("carried", self.carried, get_args(Carried))
        if isinstance(self.inputs, Uniform) and self.inputs.keep_size:
            raise SuiteError(
                "keep_size is for weights, whose size is known; use it in weights, not in inputs"
            )
        for name, weight_bits, input_bits in self.by_layer:
            check_bits(f"by_layer {name}", weight_bits, FLOAT_BITS)
            check_bits(f"by_layer {name}", input_bits, FLOAT_BITS)

    @property
    def _ends(self) -> tuple[int, int]:
        """The widths of weight and input of the first and the last layer."""
        if self.first_last is None:
            return self.weight_bits, self.act_bits
        return self.first_last, self.first_last_inputs or self.first_last

    def _of_ends(self, model: nn.Module) -> dict[str, tuple[int, int]]:
        """The widths of the first and the last layers."""
        from suite.quantizers.layers import first_and_last

        first, last = first_and_last(model)
        weight_bits, act_bits = self._ends
        return dict.fromkeys(last, self._ends) | dict.fromkeys(
            first, (weight_bits, self.image_bits or act_bits)
        )

    @property
    def sets_widths(self) -> bool:
        """Where all layers have quantizers on input and weight."""
        return self.linear and self.first_input

    @property
    def names_layers(self) -> bool:
        return bool(self.by_layer)

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where it calls no layer that multiplies, for a name in `by_layer` of no layer, and where it
        has no residual blocks to round the inputs of."""
        from suite.networks.graph import graph_of
        from suite.quantizers.layers import layers_of, no_layer

        found = [name for name, _ in layers_of(model, self._kinds(), graph_of(model))]
        if strange := [name for name, *_ in self.by_layer if name not in found]:
            raise no_layer(strange[0], found)
        if self.carried == "rounded":
            from suite.quantizers.block_inputs import check_block_inputs

            check_block_inputs(model)

    def _kinds(self) -> tuple[type[nn.Module], ...]:
        from torch import nn

        from suite.quantizers.layers import LAYERS, RELU_AND_POOL

        return (LAYERS if self.linear else (nn.Conv2d,)) + (RELU_AND_POOL if self.relu_and_pool else ())

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """A copy of `model`. Raises SuiteError for a value that is not finite, for a layer that is not there, and
        where no residual blocks are found to round the inputs of."""
        from suite.networks.graph import left_in_float
        from suite.quantizers.layers import quantize, set_widths

        def activation(first: bool) -> Quantizer | None:
            without = self.act_bits == FLOAT_BITS or (first and not self.first_input)
            return None if without else self.inputs.quantizer(self.act_bits)

        def weight() -> Quantizer | None:
            return None if self.weight_bits == FLOAT_BITS else self.weights.quantizer(self.weight_bits)

        if left := left_in_float(model):
            feed.keep("left_in_float.json", {"parameters": left})
        model = quantize(model, self._kinds(), activation, weight)
        if self.first_last is not None or self.image_bits is not None:
            set_widths(model, self._of_ends(model))
        set_widths(model, {name: (weight, act) for name, weight, act in self.by_layer})
        if self.carried == "rounded":
            from suite.quantizers.block_inputs import round_block_inputs

            model = round_block_inputs(model)
        return model.train(self.training)


@dataclass(frozen=True)
class Bake(Step):
    """The weights are rounded for good, and every range is fixed but those that are updated always."""

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        from suite.quantizers.layers import bake

        feed.before_rounding(model)
        return bake(model)
