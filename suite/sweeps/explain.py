"""From the published procedure of a source to the corrected one, one switch at a time: what did each defect cost?

Each step differs from the one before by a single setting, so that the difference in accuracy is what this setting
costs. `suite report explain-SOURCE` draws the steps as waterfalls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from suite.methods.amax import Amax
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.histogram import Histogram
from suite.methods.k_sigma import KSigma
from suite.methods.linear import Linear
from suite.methods.percentile import Percentile
from suite.methods.qat_asymmetric import QatAsymmetric
from suite.methods.qat_symmetric import QatSymmetric
from suite.recipe import Calibration, Dataset, Method, Network, Precision, Recipe, Sgd, Training
from suite.recipe.errors import SuiteError, check_choice
from suite.sweeps import quick
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork

SCRATCH = Sgd(
    epochs=15,
    batch=128,
    lr=0.1,
    weight_decay=5e-4,
    nesterov=True,
    warmup_epochs=1,
    schedule="cosine",
    precision=Precision("O2", "bfloat16"),
)
"""Of float and quantization-aware trainings alike, so that only the rounding differs."""

SOURCES = ("000", "001", "002", "003", "004")


def sweep(
    source: Annotated[str, ", ".join(SOURCES)],
    float_network: FloatNetwork = ON_DIGITS,
    epochs: Annotated[int, "epochs of each quantization-aware training of 001"] = 1,
    scratch_epochs: Annotated[int, "001 on CIFAR-10: train all from scratch for so many epochs"] = 0,
    seed: Annotated[int, "of the trainings from scratch"] = 0,
) -> Sequence[Recipe]:
    """The source's chains on one float network."""
    check_choice("source", source, SOURCES)
    if scratch_epochs:
        if source != "001" or float_network.weights is not None:
            raise SuiteError("--scratch-epochs is for source 001, without --weights")
        feed = replace(SCRATCH, epochs=scratch_epochs)
        training = Training(Network("resnet20", "A"), Dataset("cifar10"), feed, seed)
        return [Recipe(training, method) for chain in scratch_chains(feed) for method in chain]
    if float_network.weights is None:
        feed = replace(quick.QAT, epochs=epochs)
    else:
        feed = Sgd(epochs=epochs, batch=128, lr=0.01, schedule="cosine", precision=Precision("O0"))
    start = float_network.start(seed=0)
    return [Recipe(start, method) for chain in chains(source, feed) for method in chain]


def scratch_chains(feed: Sgd) -> list[list[Method]]:
    """Source 001 trained from scratch, as published, and what its ranges cost; both schemes share them."""
    symmetric, asymmetric = (
        kind(8, 8, from_scratch=True, ranges_move=True, feed=feed) for kind in (QatSymmetric, QatAsymmetric)
    )
    return [_chain(symmetric, *_TRACKING), [asymmetric]]


def chains(source: str, feed: Sgd) -> list[list[Method]]:
    """The chains of a source, from what it published to what is right; `feed` is for those that train."""
    match source:
        case "000":
            return [_linear(bits) for bits in (16, 8, 4)]
        case "001":  # its text averages with 0.99 old, its code with 0.9
            symmetric, asymmetric = (
                kind(8, 8, momentum=0.01, ranges_move=True, feed=feed)
                for kind in (QatSymmetric, QatAsymmetric)
            )
            switches = [("momentum", 0.1), *_TRACKING, ("momentum", 0.01)]
            return [_chain(symmetric, *switches, ("divide_by_128", True)), _chain(asymmetric, *switches)]
        case "002":
            hist: list[Method] = [
                Histogram(bits, bits, search=False, bins_are_bits=True, train_mode=True) for bits in (8, 4)
            ]
            fake: list[Method] = [Percentile(bits, bits, train_mode=True) for bits in (8, 4, 3)]
            builtin = _chain(BuiltinInt8(feed=Calibration(images=128)), ("feed", Calibration()))
            searched = [("search", True), ("bins_are_bits", False)]
            return [
                builtin,
                *(_chain(m, *searched, *_PLACEMENT) for m in hist),
                *(_chain(m, *_PLACEMENT) for m in fake),
            ]
        case "003":
            return [
                _chain(KSigma(label + 1), ("weight_bits", label), ("per_layer", True)) for label in (8, 4)
            ]
        case "004":  # sound: what is asked is only what it costs to fix the ranges in advance
            return [_chain(Amax(bits, bits), ("feed", Calibration())) for bits in (8, 4)]
    return []


_TRACKING = (("ranges_move", False), ("running_extreme", True))
_PLACEMENT = (("train_mode", False), ("layers_only", True), ("unsigned_after_relu", True))


def _linear(bits: int) -> list[Method]:
    return _chain(
        Linear(bits, weights_evaluated=False, batch_statistics=True),
        ("batch_statistics", False),
        ("weights_evaluated", True),
        ("map_back", True),
        ("input_cast", False),
        ("rounding", "nearest"),
        ("every_tensor", False),
    )


def _chain(published: Method, *switches: tuple[str, Any]) -> list[Method]:
    """`published`, and after it each method with one more switch set."""
    chain = [published]
    for name, value in switches:
        chain.append(replace(chain[-1], **{name: value}))  # type: ignore[type-var]
    return chain
