"""What makes a layer of torch a quantized one: mixins for layers of one's own too, as NVIDIA has them."""

from __future__ import annotations

from typing import Any

from torch import nn

from suite.pytorch_quantization.nn.modules.tensor_quantizer import TensorQuantizer
from suite.pytorch_quantization.tensor_quant import QUANT_DESC_8BIT_PER_TENSOR, QuantDescriptor
from suite.recipe.errors import SuiteError


class QuantInputMixin:
    """A quantizer of the input, for layers without a weight: `init_quantizer(...)` makes it, `forward` applies it."""

    default_quant_desc_input = QUANT_DESC_8BIT_PER_TENSOR
    _input_quantizer: TensorQuantizer

    def init_quantizer(self, quant_desc_input: QuantDescriptor) -> None:
        """Make the quantizer. Raises SuiteError at a descriptor with fake_quant=False."""
        self._input_quantizer = TensorQuantizer(_of_a_layer(quant_desc_input))

    @property
    def input_quantizer(self) -> TensorQuantizer:
        """The quantizer of the input."""
        return self._input_quantizer

    @classmethod
    def set_default_quant_desc_input(cls, value: QuantDescriptor) -> None:
        """Describe the inputs of this class's layers that are made from now on."""
        cls.default_quant_desc_input = _descriptor(value)


class QuantMixin:
    """A quantizer of the input and one of the weight: `init_quantizer(...)` makes them, `forward` applies them."""

    default_quant_desc_input = QUANT_DESC_8BIT_PER_TENSOR
    default_quant_desc_weight = QUANT_DESC_8BIT_PER_TENSOR
    _input_quantizer: TensorQuantizer
    _weight_quantizer: TensorQuantizer

    def init_quantizer(
        self,
        quant_desc_input: QuantDescriptor,
        quant_desc_weight: QuantDescriptor,
        num_layers: int | None = None,
    ) -> None:
        """Make the two quantizers; with `num_layers` that many of each, as ModuleLists `_input_quantizers`, ...

        Raises SuiteError at a descriptor with fake_quant=False.
        """
        input, weight = _of_a_layer(quant_desc_input), _of_a_layer(quant_desc_weight)
        if num_layers is None:
            self._input_quantizer, self._weight_quantizer = TensorQuantizer(input), TensorQuantizer(weight)
        else:
            self._input_quantizers = nn.ModuleList(TensorQuantizer(input) for _ in range(num_layers))
            self._weight_quantizers = nn.ModuleList(TensorQuantizer(weight) for _ in range(num_layers))

    @property
    def input_quantizer(self) -> TensorQuantizer:
        """The quantizer of the input."""
        return self._input_quantizer

    @property
    def weight_quantizer(self) -> TensorQuantizer:
        """The quantizer of the weight."""
        return self._weight_quantizer

    @classmethod
    def set_default_quant_desc_input(cls, value: QuantDescriptor) -> None:
        """Describe the inputs of this class's layers that are made from now on."""
        cls.default_quant_desc_input = _descriptor(value)

    @classmethod
    def set_default_quant_desc_weight(cls, value: QuantDescriptor) -> None:
        """Describe the weights of this class's layers that are made from now on."""
        cls.default_quant_desc_weight = _descriptor(value)


def pop_quant_desc_in_kwargs(quant_cls: Any, input_only: bool = False, **kwargs: Any) -> Any:
    """(input's descriptor, weight's descriptor) of `kwargs`, else the defaults of the class; the input's alone where
    `input_only`. Raises SuiteError where `kwargs` holds anything else."""
    input = kwargs.pop("quant_desc_input", None) or quant_cls.default_quant_desc_input
    weight = None
    if not input_only:
        weight = kwargs.pop("quant_desc_weight", None) or quant_cls.default_quant_desc_weight
    if kwargs:
        wanted = "quant_desc_input" if input_only else "quant_desc_input and quant_desc_weight"
        raise SuiteError(f"{', '.join(kwargs)} cannot be passed to {quant_cls.__name__}; use {wanted}")
    return input if input_only else (input, weight)


class QuantizedLayer(QuantMixin, nn.Module):
    """The suite's own layers with a weight.

    The arguments are the layer's own and, by keyword, quant_desc_input and quant_desc_weight; without them the
    defaults of the class: 8 bits, dynamic, inputs per tensor and weights per output channel. The layer's parameters
    keep their names. Raises SuiteError at a descriptor with fake_quant=False.
    """

    def __init__(
        self,
        *args: Any,
        quant_desc_input: QuantDescriptor | None = None,
        quant_desc_weight: QuantDescriptor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        described = pop_quant_desc_in_kwargs(
            type(self), quant_desc_input=quant_desc_input, quant_desc_weight=quant_desc_weight
        )
        self.init_quantizer(*described)


def _descriptor(value: QuantDescriptor) -> QuantDescriptor:
    if not isinstance(value, QuantDescriptor):
        raise SuiteError(f"{value!r} is no QuantDescriptor; use QuantDescriptor(...)")
    return value


def _of_a_layer(value: QuantDescriptor) -> QuantDescriptor:
    if not _descriptor(value).fake_quant:
        raise SuiteError("a quantized layer computes on values mapped back; use fake_quant=True")
    return value
