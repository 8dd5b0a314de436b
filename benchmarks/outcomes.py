"""Whether stages came out as at the reference commit, bit for bit: loss, top-1 and the answer to every image.

    python -m benchmarks.outcomes --runs runs quick cifar10            # compares with benchmarks/outcomes.json
    python -m benchmarks.outcomes --runs runs quick cifar10 --write    # makes that file anew

The reference is of the stages that do not train, on the device and with the versions that the file names. Another CPU
sums in another order and may differ in the last bit of a loss, and so in an image. A method whose arithmetic changed
on purpose has another `revision` and so another key: it is listed as not there. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from suite.recipe import Recipe
from suite.record.journal import read_outcome
from suite.sweeps.stored import load_sweep

REFERENCE = Path(__file__).with_suffix(".json")


def outcomes(runs: Path, sweep: str) -> dict[str, dict[str, Any]]:
    """By key: what came out of each stage of the sweep that quantizes without training, and is done."""
    found = {}
    for stage in load_sweep(runs, sweep):
        outcome = read_outcome(runs / stage.key)
        if isinstance(stage, Recipe) and not stage.trains_by and outcome:
            answers = hashlib.sha256(outcome["correct"].encode()).hexdigest()[:16]
            values = {"top1": outcome["top1"], "loss": outcome["loss"], "answers": answers}
            found[stage.key] = {"name": stage.name, **values}
    return found


def provenance(runs: Path, key: str) -> dict[str, Any]:
    """Where and with what a stage was run."""
    stage = json.loads((runs / key / "stage.json").read_text())
    return {name: stage[name] for name in ("device", "versions", "commit")}


def main(words: list[str] | None = None) -> None:
    """Compare, or write the reference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outcomes", description=__doc__)
    parser.add_argument("sweeps", nargs="+")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args(words)
    now = {sweep: outcomes(chosen.runs, sweep) for sweep in chosen.sweeps}
    if chosen.write:
        first = next(key for stages in now.values() for key in stages)
        content = {"provenance": provenance(chosen.runs, first), "sweeps": now}
        REFERENCE.write_text(json.dumps(content, indent=1) + "\n")
        return
    reference = json.loads(REFERENCE.read_text())
    print(f"reference: {reference['provenance']}")
    counts: Counter[str] = Counter(same=0, different=0)
    for sweep, stages in now.items():
        for key, before in reference["sweeps"][sweep].items():
            found = stages.get(key)
            same = found is not None and all(
                found[name] == before[name] for name in ("top1", "loss", "answers")
            )
            what = "same" if same else "different" if found else "not there"
            counts[what] += 1
            if not same:
                after = f"top-1 {found['top1']:.2f} %, loss {found['loss']}" if found else ""
                print(
                    f"{what}: {before['name']}: top-1 {before['top1']:.2f} %, loss {before['loss']}; {after}"
                )
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
