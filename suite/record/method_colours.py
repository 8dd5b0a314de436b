"""The colour of each method, the same in figures, report.html and MLflow."""

from __future__ import annotations

import zlib

METHOD_COLOURS = {
    "float": "#000000",
    # Okabe and Ito's colours, which the colour-blind can distinguish; the yellow is darkened to show on white.
    "linear": "#D55E00",
    "int_cast": "#7F3C00",
    "qat_symmetric": "#0072B2",
    "qat_asymmetric": "#56B4E9",
    "builtin_int8": "#5B5B5B",
    "histogram": "#009E73",
    "percentile": "#B8A000",
    "k_sigma": "#CC79A7",
    "amax": "#E69F00",
    # Paul Tol's muted colours, then darker and lighter ones between them.
    "entropy": "#CC6677",
    "mse": "#117733",
    "adaround": "#332288",
    "brecq": "#882255",
    "qdrop": "#AA4499",
    "bias_correction": "#999933",
    "dfq": "#44AA99",
    "equalized": "#88CCEE",
    "best": "#E7298A",
    "lsq": "#1F3B6E",
    "lsq_plus": "#6A8FD8",
    "pact": "#A6761D",
    "dorefa": "#8C564B",
    "ewgs": "#7570B3",
    "apot": "#66A61E",
    "parq": "#A50F15",
    "binary_relax": "#54278F",
    "mixed": "#08519C",
    "scheme": "#2F6F73",
}
OTHER_COLOURS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#CC6677", "#882255", "#AA4499")
"""Of methods that are not named above, such as a user's own."""


def colour_of(method: str) -> str:
    """`#RRGGBB` of `method`; one that is not in METHOD_COLOURS gets a colour from its name alone, ever the same.

    >>> colour_of("amax"), colour_of("something new") == colour_of("something new")
    ('#E69F00', True)
    """
    return METHOD_COLOURS.get(method, OTHER_COLOURS[zlib.crc32(method.encode()) % len(OTHER_COLOURS)])
