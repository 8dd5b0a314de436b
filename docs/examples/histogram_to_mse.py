"""From the method `histogram` to `mse`, one part changed after the other: which part decides at 3 bits?"""

from suite.methods.histogram import Histogram
from suite.methods.mse import Mse
from suite.methods.scheme import Scheme
from suite.recipe import FLOAT_BITS, Recipe
from suite.steps import CurrentMinMax, LeastError, Uniform
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork


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
    return [Recipe(start, method) for method in chain + alone]
