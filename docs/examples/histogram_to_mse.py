"""From the method `histogram` to `mse`, one part changed after the other: which part decides at 3 bits?"""

from dataclasses import dataclass

import torch

from suite.methods.histogram import Histogram
from suite.methods.mse import Mse
from suite.methods.scheme import Scheme
from suite.recipe import FLOAT_BITS, Recipe
from suite.recipe.method import Step
from suite.steps import CurrentMinMax, LeastError, Uniform
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork


@dataclass(frozen=True)
class KeepSize(Step):
    """After Bake: each output channel of a rounded weight q is multiplied by sum(w w) / sum(q w), w the float one."""

    def apply(self, model, feed):
        weights = dict(feed.reference.named_parameters())
        with torch.no_grad():
            for name, q in model.named_parameters():
                if q.dim() > 1:
                    w, dims = weights[name.replace(".layer.weight", ".weight")], tuple(range(1, q.dim()))
                    q.mul_((w * w).sum(dims, keepdim=True) / (q * w).sum(dims, keepdim=True))
        return model


def sweep(network: FloatNetwork = ON_DIGITS, bits: int = 3) -> list[Recipe]:
    start = network.start(seed=0)
    chain = [
        Histogram(bits, bits),
        Histogram(bits, bits, layers_only=True),
        Histogram(bits, bits, layers_only=True, unsigned_after_relu=True),
        Mse(bits, bits, search_weights=False),
        Mse(bits, bits),
    ]
    weights = [Uniform(of, per="channel") for of in (CurrentMinMax(), LeastError())]
    alone = [Scheme(bits, FLOAT_BITS, of) for of in weights] + [Scheme(FLOAT_BITS, bits)]
    alone += [Scheme(bits, FLOAT_BITS, of, after=(KeepSize(),)) for of in weights]
    return [Recipe(start, method) for method in chain + alone]
