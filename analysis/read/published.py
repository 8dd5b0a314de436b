"""What the five sources state, read from `published.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

PATH = Path(__file__).parent.parent / "published.toml"


@dataclass(frozen=True)
class Number:
    """One published result. `value` is a percent; `match` is what was run, `labelled` what its label has otherwise;
    `model` is None where the source names none; `best` is whether the epoch was chosen on the test images; `spread` is
    the standard deviation over `runs` of which `value` is the mean, 0 where none is stated; `carried`, "float" or
    "rounded", is what an identity shortcut carries, "" where that is not known."""

    id: str
    source: str
    label: str
    metric: str
    value: float
    dataset: str
    quote: str
    match: Mapping[str, Any]
    labelled: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    baseline: str | None = None
    best: bool = False
    note: str = ""
    spread: float = 0.0
    runs: int = 0
    carried: str = ""


@dataclass(frozen=True)
class Published:
    """All published results and the source that describes each method, in the order of the sources; what each source
    is; and the parameters with which a method does what its name says, False where none do."""

    numbers: tuple[Number, ...]
    methods: Mapping[str, str]
    sources: Mapping[str, str] = field(default_factory=dict)
    sound: Mapping[str, Mapping[str, Any] | Literal[False]] = field(default_factory=dict)

    def title(self, source: str) -> str:
        """A source by its title and its number: `Handwritten-Quantization (002)`."""
        return f"{self.sources[source].partition(':')[0]} ({source})"

    def drop(self, number: Number) -> float | None:
        """Float accuracy minus `number`, in points; None where the source states no float accuracy."""
        if number.baseline is None:
            return None
        (float_value,) = (other.value for other in self.numbers if other.id == number.baseline)
        return round(float_value - number.value, 6)


def load(path: Path = PATH) -> Published:
    """Read a file of published results; a TypeError names a field that is missing or too many."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    numbers = tuple(Number(**entry) for entry in content["number"])
    return Published(numbers, content["methods"], content.get("sources", {}), content.get("sound", {}))
