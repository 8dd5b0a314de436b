"""The colour and the marker of each method, the same in figures, report.html and MLflow.

A method without a line in CHOSEN, such as a new one or a user's own, is drawn in a colour that none there has.
"""

from __future__ import annotations

import zlib

CHOSEN: dict[str, tuple[str, str]] = {
    "float": ("#000000", "D"),
    # Okabe and Ito's colours, which the colour-blind can distinguish; the yellow is darkened to show on white.
    "linear": ("#D55E00", "o"),
    "int_cast": ("#7F3C00", "X"),
    "qat_symmetric": ("#0072B2", "s"),
    "qat_asymmetric": ("#56B4E9", "D"),
    "builtin_int8": ("#5B5B5B", "P"),
    "histogram": ("#009E73", "^"),
    "percentile": ("#B8A000", "v"),
    "k_sigma": ("#CC79A7", "h"),
    "amax": ("#E69F00", "*"),
    # Paul Tol's muted colours, then darker and lighter ones between them.
    "entropy": ("#CC6677", "s"),
    "mse": ("#117733", "<"),
    "adaround": ("#332288", ">"),
    "brecq": ("#882255", "p"),
    "qdrop": ("#AA4499", "d"),
    "bias_correction": ("#999933", "H"),
    "dfq": ("#44AA99", "o"),
    "equalized": ("#88CCEE", "^"),
    "best": ("#E7298A", "v"),
    "lsq": ("#1F3B6E", "<"),
    "lsq_plus": ("#6A8FD8", ">"),
    "pact": ("#A6761D", "s"),
    "dorefa": ("#8C564B", "P"),
    "ewgs": ("#7570B3", "h"),
    "apot": ("#66A61E", "p"),
    "parq": ("#A50F15", "d"),
    "binary_relax": ("#54278F", "H"),
    "mixed": ("#08519C", "8"),
    "scheme": ("#2F6F73", "X"),
}
"""By method `#RRGGBB`, and the letter that matplotlib has for the marker."""

OTHER_COLOURS = (
    "#4B78FF", "#4B4B0F", "#C369F0", "#FF4B69", "#879669", "#004B2D",
    "#D2694B", "#A58796", "#B4004B", "#781E1E", "#784B69", "#961EA5",
)  # fmt: skip
"""Of other methods: in CIELAB, one after the other, those farthest from all before them that show on white."""
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "h", "*", "<", ">", "p", "8", "d", "H")


def colour_and_marker(method: str) -> tuple[str, str]:
    """Those of `method`; where CHOSEN has none, they follow from its name alone, and are the same each time.

    >>> colour_and_marker("amax"), colour_and_marker("something new") == colour_and_marker("something new")
    (('#E69F00', '*'), True)
    """
    colour, marker = divmod(zlib.crc32(method.encode()), len(MARKERS))
    return CHOSEN.get(method, (OTHER_COLOURS[colour % len(OTHER_COLOURS)], MARKERS[marker]))
