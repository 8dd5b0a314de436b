"""The key of every stage of every shipped sweep: one that changes orphans the run directories that users have.

A key may change because its arithmetic did: raise the `revision`, run the committed results again, and write the file
anew with `PYTHONPATH=.:tests python tests/recipe/test_keys.py`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fakes import ROOT

from suite.recipe import plan
from suite.sweeps import find, names

GOLDEN = ROOT / "tests" / "golden" / "keys.json"


def variants(weights: Path) -> Iterator[tuple[str, list[str]]]:
    """Each shipped sweep with the options that reach all of its stages."""
    checkpoint = ["--weights", str(weights)]
    for name in names():
        if name == "explain":
            for source in ("000", "001", "002", "003", "004"):
                yield name, ["--source", source]
                yield name, ["--source", source, *checkpoint]
            yield name, ["--source", "001", "--scratch-epochs", "15"]
        elif name in ("cifar10", "treatments"):
            yield name, [*checkpoint, "--calibration-seeds", "2"]
        elif name in ("imagenet", "lowbit", "mixed", "ptq", "resnet50"):
            yield name, ["--train"] if name == "resnet50" else []
            yield name, [*checkpoint]
            if name == "lowbit":
                taught = ["--teacher", str(weights)]
                yield name, [*checkpoint, "--epochs", "2", "--bfloat16", "--progressive"]
                yield name, [*checkpoint, "--epochs", "2", *taught]
                for convention in ("32", "apot", "rest"):
                    yield name, [*checkpoint, "--epochs", "2", "--first-last", convention]
        else:
            yield name, []


def shipped() -> dict[str, dict[str, str]]:
    """The name of each stage by its key, for each variant of each sweep. The checkpoint is a file of seven bytes."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        weights.write_bytes(b"weights")
        for name, options in variants(weights):
            stages = plan(find(name).stages(options)[0])
            shown = " ".join([name, *("FILE" if word == str(weights) else word for word in options)])
            found[shown] = {stage.key: stage.name for stage in stages}
    return found


def test_no_key_changes_by_accident() -> None:
    golden = json.loads(GOLDEN.read_text())
    now = shipped()
    assert {name: list(stages) for name, stages in now.items()} == {
        name: list(stages) for name, stages in golden.items()
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(shipped(), indent=1) + "\n")
