"""The words of the page, explained at its end."""

from __future__ import annotations

from analysis.page.parts import Fact, Facts, Section
from analysis.report.results import Results

WORDS = {
    "top-1, top-5": "Percent of the test images whose class is the first, or among the first five, answers.",
    "drop": "Top-1 of the float network minus that of the quantized one, in points.",
    "w4a8": "Weights of 4 bits, inputs of the layers (activations) of 8; w4: activations stay float.",
    "float network": "The network before quantization, of 32 bits.",
    "configuration": "All settings of a run but its seeds; runs of one configuration are averaged.",
    "n": "Runs of a configuration that are done; they differ by their seeds.",
    "95 % interval": "Of a mean over seeds (Student's t) or of one run by its number of images, whichever is wider.",
    "re-run": "Our run of what a source ran, its mistakes included, as far as its text, code and numbers show.",
    "calibration": "Finding ranges of activations on images of the training split.",
    "range": "What the levels of a quantizer cover; values beyond it are clipped.",
    "BatchNorm folded": "Multiplied into the weights of the convolution before it.",
    "BatchNorm re-estimated": "Its statistics are computed again on the quantized network.",
    "first and last layer": "Edge layers; many methods leave them at 8 bits or float.",
    "SQNR": "Signal to quantization noise, in dB: the power of a tensor over that of its rounding error.",
    "front": "Of the configurations without a source's defect, those that no other beats in both accuracy and cost.",
    "p": "How often a difference at least this large comes by chance; corrected for the number of tests (Holm).",
}


def section(results: Results) -> Section:
    """Each word with what it means here."""
    return Section("glossary", "Words", [Facts([Fact(word, meaning) for word, meaning in WORDS.items()])])
