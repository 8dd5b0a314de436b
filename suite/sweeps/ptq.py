"""Post-training quantization at 4, 3 and 2 bits, no training: what learns or corrects, and plain rounding.

Each from 1,024 training images, without labels. In the conventions of published tables: the first and the last layer
at 8 bits; every layer at the same width, the image too; and every layer, but the image as it is stored, with 8 bits,
where identity shortcuts carry floats or, as in the code of GDFQ and of others that use no data, what was rounded. With
`carried` rounded all shortcuts do so, as in BRECQ's and QDrop's code. `views`, `zero_points` and `together` are of the
methods that learn, and off by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from suite.methods.adaround import Adaround
from suite.methods.best import Best
from suite.methods.bias_correction import BiasCorrection
from suite.methods.brecq import Brecq
from suite.methods.dfq import Dfq
from suite.methods.equalized import Equalized
from suite.methods.qdrop import Qdrop
from suite.methods.scheme import Scheme
from suite.recipe import Calibration, Method, Recipe
from suite.recipe.errors import SuiteError, check_choice
from suite.steps.insert import Carried
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork

Which = Literal["best", "qdrop", "brecq", "adaround", "bias_correction", "dfq", "equalized", "rounding"]

Convention = tuple[dict[str, Any], tuple[tuple[int, int], ...]]
CONVENTIONS: tuple[Convention, ...] = (
    ({"first_last": 8}, ((4, 4), (3, 3), (2, 4), (2, 2))),
    ({"first_last": None, "image_bits": 8}, ((4, 4), (3, 3))),
    ({"first_last": None, "image_bits": 8, "carried": "rounded"}, ((4, 4), (3, 3))),
    ({"first_last": None}, ((4, 4), (3, 3))),
)
"""Each with its widths of weights and inputs."""

LEARNING: dict[str, Any] = {"best": Best, "qdrop": Qdrop, "brecq": Brecq, "adaround": Adaround}
CORRECTING: dict[str, Any] = {"bias_correction": BiasCorrection, "dfq": Dfq, "equalized": Equalized}
"""The classes of the methods by name."""

DIGITS_ITERATIONS = 100
"""Iterations a block where no checkpoint is given: the digits are few and easy."""


def sweep(
    float_network: FloatNetwork = ON_DIGITS,
    methods: Annotated[tuple[str, ...], "which methods; rounding is to the nearest"] = get_args(Which),
    draws: Annotated[int, "random choices of 1,024 calibration images or, on digits, trainings"] = 3,
    iterations: Annotated[int, "of each block or layer that learns; 0: 1,000, on digits 100"] = 0,
    carried: Annotated[Carried, "by an identity shortcut; rounded, as in BRECQ, QDrop and GDFQ"] = "float",
    views: Annotated[int, "what learns: crops of each calibration image; 0: the image as it is"] = 0,
    zero_points: Annotated[bool, "what learns: inputs that may be negative have a zero point"] = False,
    together: Annotated[float, "best: part of the iterations for all steps and biases at once"] = 0.0,
) -> Sequence[Recipe]:
    """Draw after draw, the methods that lose least first."""
    for method in methods:
        check_choice("methods", method, get_args(Which))
    check_used(methods, views=views, zero_points=zero_points, together=together)
    recipes = []
    if not iterations:
        iterations = DIGITS_ITERATIONS if float_network.weights is None else Qdrop().iterations
    learned: dict[str, Any] = {"iterations": iterations, "views": views, "zero_points": zero_points}
    blocks = "resnet" in float_network.model  # without residual blocks nothing is carried
    conventions = [one for one in CONVENTIONS if blocks or "carried" not in one[0]]
    for draw in range(draws):
        start, feed = float_network.start(draw), float_network.calibration(draw)
        for which in methods:
            own = learned if which in LEARNING else {}
            own = {**own, "together": together} if which == "best" else own
            own = {**own, "carried": carried}
            recipes += [Recipe(start, method) for method in _of(which, feed, conventions, own)]
    return recipes


def check_used(methods: Sequence[str], **options: object) -> None:
    """Raise SuiteError for an option that is given and that none of the methods has."""
    for name, value in options.items():
        having = ("best",) if name == "together" else tuple(LEARNING)
        if value and not set(methods) & set(having):
            raise SuiteError(f"{name} {value} is of {', '.join(having)}; methods are {', '.join(methods)}")


def _of(
    which: str, feed: Calibration, conventions: Sequence[Convention], options: Mapping[str, Any]
) -> list[Method]:
    """The method with these `options` at each width, in each convention."""
    found: list[Method] = []
    for convention, widths in conventions:
        own = {**options, **convention}
        for w, a in widths:
            if which == "rounding":
                found.append(Scheme(w, a, calibration=feed, **own))
            else:
                found.append((LEARNING | CORRECTING)[which](w, a, feed=feed, **own))
    return list(dict.fromkeys(found))
