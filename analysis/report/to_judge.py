"""Which command would judge the published numbers that are not judged."""

from __future__ import annotations

import pandas as pd

from analysis.compare.agreement import JUDGED
from analysis.read import published
from analysis.read.published import Number

NO_NETWORK = "nothing can, since the source names no network"


def remedies(comparison: pd.DataFrame) -> list[str]:
    """Sentences `To judge 8bit hist (002): suite explain 002 ...`, numbers of one remedy together; none where all are
    judged. `comparison` is that of `compare.agreement`."""
    numbers = {number.id: number for number in published.load().numbers}
    found: dict[str, list[str]] = {}
    for name, rows in comparison.groupby("id", sort=False):
        if not rows["verdict"].isin(JUDGED).any():
            number = numbers[str(name)]
            words = f"{number.label} ({number.source})"
            ran = bool((rows["ours"].notna() & (rows["our_dataset"] == number.dataset)).any())
            listed = found.setdefault(_remedy(number, ran), [])
            listed += [words] * (words not in listed)
    return [f"To judge {'; '.join(names)}: {remedy}." for remedy, names in found.items()]


def _remedy(number: Number, ran: bool) -> str:
    if number.model is None:
        return NO_NETWORK
    # On any network of its data set a drop can be judged, and whether a number measures what its label says.
    if not ran and (number.baseline is not None or number.labelled):
        return f"suite explain {number.source} --weights CHECKPOINT, of a network for {number.dataset}"
    return "suite launch published --on torchrun, which trains the source's network on GPUs"
