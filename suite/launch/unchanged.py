"""Whether the code of a method and the data are still those of the runs that are done."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from suite.data import datasets
from suite.ranks import CPU
from suite.recipe import Dataset
from suite.recipe.errors import SuiteError
from suite.recipe.planning import float_stage_of
from suite.recipe.sources import source_file, sources
from suite.recipe.words import counted
from suite.record.journal import images_read
from suite.record.provenance import ROOT, is_committed
from suite.record.status import Status
from suite.run import checkpoint


def check_unchanged(statuses: Sequence[Status], data: Path) -> None:
    """Raise SuiteError where a launch would take over a result or a saved state that was made with another
    source file or with other images than would be used now.

    A file is compared where it is the user's own: outside of the package, or inside and not as git has it committed. A
    committed file of the package is held by its method's `revision`, which is in the key and is raised with the
    arithmetic: comparing bytes would throw results away for a comment. What a run of an older version did not record
    is not compared.
    """
    kept = [now for now in statuses if now.state == "done" or checkpoint.resumable(now.folder)]
    _check_sources(kept)
    _check_data(kept, data)


def _check_sources(kept: Sequence[Status]) -> None:
    changed: dict[str, list[Status]] = {}
    for now in kept:
        started = [event for event in now.journal if event["event"] == "started"]
        recorded = started[-1].get("sources") if started else None
        if not isinstance(recorded, dict):
            continue
        for module, digest in sources(now.stage).items():
            if recorded.get(module, digest) != digest:
                changed.setdefault(module, []).append(now)
    for module, runs in changed.items():
        file = source_file(module)
        if _is_own(file):
            raise SuiteError(
                f"{file} has changed since {_named(runs)} used it; if it computes something else now, raise its "
                f"`revision`, and they are run again; if not, put it back as it was, or remove their run directories"
            )


def _is_own(file: Path) -> bool:
    inside = file.resolve().is_relative_to(ROOT / "suite")
    return not (inside and is_committed(file))


def _check_data(kept: Sequence[Status], data: Path) -> None:
    read: dict[tuple[str, str], list[tuple[str, Status]]] = {}
    whole: dict[str, Dataset] = {}
    for now in kept:
        dataset = float_stage_of(now.stage).dataset
        whole.setdefault(dataset.name, dataset)
        for split, digest in images_read(now.journal).items():
            if split in ("train", "test") and digest:
                read.setdefault((dataset.name, split), []).append((digest, now))
    for (name, split), runs in read.items():
        found = _digest(whole[name], split, data)
        if other := [now for digest, now in runs if found and digest != found]:
            raise SuiteError(
                f"the {split} images of {name} in {data} are not those that {_named(other)} read; name the folder of "
                f"those with --data, or run on these in another folder with --runs"
            )


def _digest(dataset: Dataset, split: str, data: Path) -> str:
    """Of the images that are there now; empty where they are not, which preflight reports if a run needs them."""
    with suppress(SuiteError, OSError):
        return datasets.load(dataset, split, data, CPU).digest
    return ""


def _named(runs: Sequence[Status]) -> str:
    first = f"{runs[0].stage.name} ({runs[0].stage.key})"
    return first if len(runs) == 1 else f"{counted(len(runs), 'run')}, first {first},"
