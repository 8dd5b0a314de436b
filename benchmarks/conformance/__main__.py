"""The command: every toolkit that is here is compared, the page is written, and the last line is one line of JSON."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

import benchmarks.conformance
from benchmarks.conformance import page, tensors
from benchmarks.conformance.compare import Compared, compared
from benchmarks.conformance.settings import SETTINGS, NotOfferedError, Toolkit
from benchmarks.conformance.toolkits import TOOLKITS
from suite.recipe.errors import in_a_line
from suite.record.provenance import provenance


def probed(names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(the version of each toolkit that is here, why each other one is not)."""
    versions, skipped = {}, {}
    for name in names:
        try:
            versions[name] = TOOLKITS[name].version()
        except Exception as error:
            skipped[name] = in_a_line(error)
    return versions, skipped


def measured(
    toolkits: Sequence[Toolkit], named: Mapping[str, Tensor]
) -> tuple[list[Compared], dict[tuple[str, str], str]]:
    """(all pairs, why a toolkit has none of a setting)."""
    found: list[Compared] = []
    not_offered: dict[tuple[str, str], str] = {}
    for toolkit in toolkits:
        for tensor, x in named.items():
            for setting in tensors.settings_of(tensor):
                try:
                    found += compared(toolkit, tensor, x, setting)
                except NotOfferedError as error:
                    not_offered[toolkit.name, setting.name] = str(error)
        print(f"{toolkit.name}: {sum(pair.toolkit == toolkit.name for pair in found):,} pairs", flush=True)
    return found, not_offered


def summary(found: Sequence[Compared], differences: Sequence[page.Group]) -> dict[str, object]:
    """The line of JSON."""
    kinds = Counter(pair.verdict.kind for pair in found)
    return {
        "pairs_compared": len(found),
        "unexplained": kinds["unexplained"],
        "without_reproducer": sum(not group.program for group in differences),
        "by_class": dict(kinds.most_common()),
        "pairs_by_toolkit": dict(Counter(pair.toolkit for pair in found)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where something is unexplained or no toolkit is here, else 0."""
    peers = [name for name in TOOLKITS if name != "ours"]
    parser = argparse.ArgumentParser(description=(benchmarks.conformance.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--toolkits", nargs="+", choices=peers, default=peers, help="default all that are installed"
    )
    parser.add_argument("--made-only", action="store_true", help="without the layers of ResNet-20")
    parser.add_argument("--out", type=Path, help="a folder for the page, such as results/conformance")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of toolkits, about kernels that are not used here
    versions, skipped = probed(chosen.toolkits)
    for name, why in skipped.items():
        print(f"{name}: skipped, {why}")
    if not versions:
        print("no toolkit to compare with is installed; install one of " + ", ".join(peers), file=sys.stderr)
        return 1
    named, source = tensors.made(), "which all are made"
    if not chosen.made_only:
        real, origin = tensors.resnet20()
        source = f"which {len(named)} are made and {len(real)} are weights and inputs of {origin}"
        named |= real
    found, not_offered = measured([TOOLKITS[name] for name in versions], named)
    differences = page.groups(found)
    line = summary(found, differences)
    head = (
        f"{len(found):,} pairs of answers, {line['unexplained']} unexplained: {len(versions)} toolkits, "
        f"{len(SETTINGS)} settings, {len(named)} tensors, of {source}. Python {platform.python_version()}, torch "
        f"{torch.__version__}, {provenance(torch.device('cpu'))['device']}. Written by `python -m "
        "benchmarks.conformance --out results/conformance`; another Python with other toolkits can run it too."
    )
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        text = page.page(found, differences, versions, skipped, not_offered, head)
        (chosen.out / "README.md").write_text(text)
    for group in differences:
        print(f"{group.toolkit:16} {group.of:14} {group.kind:12} {group.pairs:5,}  {group.why}")
    print(json.dumps(line))
    return int(bool(line["unexplained"]))


if __name__ == "__main__":
    sys.exit(main())
