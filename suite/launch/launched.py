"""What was launched of each sweep, and how: by it `resume` launches the same again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from suite.record.files import open_to_append, read_object, write_json
from suite.record.waiting import lock_exclusively


@dataclass(frozen=True)
class Launched:
    """The name of the launcher and its options, as the last launch had them, and the stages of all launches."""

    on: str
    options: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


def record_launched(
    runs: Path, sweep: str, on: str, options: Mapping[str, object], keys: Iterable[str]
) -> None:
    """Write down a launch of the stages `keys`; those of earlier launches stay, also of one at the same moment."""
    options = {name: str(v.resolve()) if isinstance(v, Path) else v for name, v in options.items()}
    file = _file(runs, sweep)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open_to_append(file.with_suffix(".lock")) as stream:
        lock_exclusively(stream, f"another launch of {sweep} is being written down")
        before = last_launched(runs, sweep)
        both = (*(before.keys if before else ()), *keys)
        write_json(asdict(Launched(on, options, tuple(dict.fromkeys(both)))), file)


def last_launched(runs: Path, sweep: str) -> Launched | None:
    """What was launched of a sweep in this runs folder; None where no launch is recorded, or the record is none."""
    try:
        found = Launched(**read_object(_file(runs, sweep)))
    except TypeError:
        return None
    are_known = isinstance(found.on, str) and isinstance(found.options, dict) and isinstance(found.keys, list)
    return replace(found, keys=tuple(map(str, found.keys))) if are_known else None


def _file(runs: Path, sweep: str) -> Path:
    return runs / "launched" / f"{sweep}.json"
