"""A method of one's own: inputs up to a percentile of what calibration sees, weights by least squared error."""

from dataclasses import dataclass

from suite.methods.scheme import Scheme
from suite.recipe import Calibration
from suite.recipe.method import Method
from suite.steps import Percentile, Uniform


@dataclass(frozen=True)
class Clipped(Method):
    weight_bits: int = 8
    act_bits: int = 8
    fraction: float = 0.999
    calibration: Calibration = Calibration()

    def steps(self):
        inputs = Uniform(Percentile(self.fraction), unsigned=True)
        return Scheme(self.weight_bits, self.act_bits, inputs=inputs, calibration=self.calibration).steps()
