"""Every committed number of results/ again: the commands, the hours they took, and then the runs.

The hours are those of the records themselves, `run_seconds` of results/NAME/runs.csv: of one thread each, on the
machine that they name. What is done already in the runs folder is not repeated, so the same command goes on after a
stop.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suite.sweeps.resnet50 import CHECKPOINT

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
SOURCES = ("000", "001", "002", "003", "004")
PREPARED = ("--shortcut", "B", "--normalization", "cifar10")
RESNET50 = ("--weights", str(CHECKPOINT), "--model", "resnet50", "--classes", "1000", *PREPARED)
APOT = "apot-resnet20-float.pth.tar"
"""The float network of APoT's authors, the one that source 003 names, is looked for beside `--weights`."""
MEASURED = {"mixed": (("suite", "sensitivity", "dc944030c75919ab", "--images", "2048"),)}
"""What is measured after a launch; the key is that of the evaluation of the public ResNet-20."""
STORMS = {
    "slurm-storm": "tests/slurm/test_slurm_storm.py",
    "mlflow-storm": "tests/track/test_mlflow_server.py",
}
"""The tests that write the other folders."""


@dataclass(frozen=True)
class Step:
    """What makes results/NAME: commands after `python -m`, the environment they need, and what beside this they do."""

    name: str
    commands: Sequence[Sequence[str]]
    needs: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def steps(weights: Path, results: Path) -> list[Step]:
    """All of them, the short ones first."""
    start = ("--weights", str(weights))
    sweeps: dict[str, tuple[str, ...]]
    sweeps = {f"explain-{source}": ("explain", "--source", source, *start) for source in SOURCES}
    sweeps |= {"cifar10": ("cifar10", *start), "treatments": ("treatments", *start)}
    sweeps["calibration-seeds"] = ("cifar10", *start, "--calibration-seeds", "3")
    sweeps |= {"ptq": ("ptq", *start, "--methods", "best"), "mixed": ("mixed", *start)}
    few = ("--uniform", "4", "3", "2", "--draws", "0")
    sweeps["mixed-best"] = ("mixed", *start, "--of", "best", *few)
    scores = ("--scores", "noise", "logits", "--draws", "1")
    sweeps["mixed-resnet50"] = ("mixed", *RESNET50, *few[:4], *scores)
    first = ("--only", "lsq w[42]a[42] 40 epochs seed 0 *")
    sweeps["lowbit"] = ("lowbit", *start, "--epochs", "40", *first)
    sweeps["resnet50"] = ("resnet50",)
    sweeps["explain-002-resnet50"] = ("explain", "--source", "002", *RESNET50)
    sweeps["histogram-to-mse"] = (str(EXAMPLES / "histogram_to_mse.py"), *RESNET50)
    apot = ("--weights", str(weights.with_name(APOT)), *PREPARED)
    sweeps["explain-003-apot"] = ("explain", "--source", "003", *apot)
    sweeps["explain-001-scratch"] = ("explain", "--source", "001", "--scratch-epochs", "15")
    out = ("--out", str(results))
    sweeps["nin"] = ("nin", "--epochs", "8", "--more-epochs", "1")
    found = [
        Step(
            name,
            (
                ("suite", "launch", *words, "--name", name, "--download"),
                *MEASURED.get(name, ()),
                ("suite", "report", name, "--png", *out),
            ),
        )
        for name, words in sweeps.items()
    ]
    found.append(Step("verdicts", (("suite", "verdicts", *out),)))
    found.append(
        Step("verify-resume", (("suite", "verify-resume", "--tries", "7"),), "prints; the README is by hand")
    )
    conformance = ("benchmarks.conformance", *out[:1], str(results / "conformance"))
    found.append(Step("conformance", (conformance,), "the toolkits, in an environment of their own"))
    found.append(
        Step(
            "latency",
            (("benchmarks.deployment", "--batch", "1"),),
            "prints; the README is by hand, of `suite latency` and this",
        )
    )
    for name, test in STORMS.items():
        folder = {"STORM_RESULTS": str(results / name)}
        found.append(Step(name, (("pytest", "-m", "long", test),), "Debian's packages, as root", folder))
    return found


def seconds(folder: Path) -> float | None:
    """What the committed runs of a folder took, all together; None where it has no table of runs."""
    file = folder / "runs.csv"
    if not file.is_file():
        return None
    with file.open(newline="", encoding="utf-8") as stream:
        return sum(float(row["run_seconds"] or 0) for row in csv.DictReader(stream))


def announced(listed: Sequence[Step], committed: Path, cores: int) -> str:
    """The table of steps and the hours that they took, for all of them and on this machine's cores."""
    lines, total = [], 0.0
    for step in listed:
        took = seconds(committed / step.name)
        total += took or 0.0
        hours = "" if took is None else f"{took / 3600:.1f} h"
        lines.append(f"{step.name:20} {hours:>7}  {step.needs}".rstrip())
    lines.append(
        f"{'all':20} {total / 3600:.1f} h of one thread on the machine of the records; on {cores} cores as fast about "
        f"{total / 3600 / cores:.1f} h, beside what has no hours above"
    )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Say what will be run and how long it took, and run it; 1 where a step failed, after the others."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--weights", type=Path, required=True, help="resnet20-12fca82f.th of akamaster/pytorch_resnet_cifar10"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="only these folders of results/"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the folders are written")
    parser.add_argument("--dry-run", action="store_true", help="say it, and run nothing")
    options = parser.parse_args(words)
    every = steps(options.weights.resolve(), options.results)
    if unknown := sorted(set(options.only) - {step.name for step in every}):
        parser.error(f"no {', '.join(unknown)}; there is {', '.join(step.name for step in every)}")
    if not options.weights.is_file():
        parser.error(f"no checkpoint {options.weights}; README.md says where it is from")
    listed = [step for step in every if not options.only or step.name in options.only]
    print(announced(listed, Path(__file__).parent.parent / "results", os.cpu_count() or 1), flush=True)
    failed = []
    for step in listed:
        for command in step.commands:
            print(f"\n$ python -m {shlex.join(command)}", flush=True)
            if options.dry_run:
                continue
            if subprocess.run([sys.executable, "-m", *command], env=os.environ | step.environment).returncode:
                failed.append(step.name)
                break
    if failed:
        print(f"\nfailed: {', '.join(failed)}; the same command goes on from here", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
