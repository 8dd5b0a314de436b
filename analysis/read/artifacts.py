"""A JSON artifact of a run, which may be torn or somebody else's: what of it can be used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from suite.record import files

FORMAT = 1
LONGEST_NAME = 40


def json_object(path: Path) -> dict[str, Any]:
    """The content of the file. Raises AnalysisError where there is none, and for one of another format."""
    try:
        value = json.loads(files.read_bytes(path))
    except FileNotFoundError:
        raise AnalysisError(f"{path.name} was not recorded") from None
    except OSError as error:
        raise AnalysisError(f"{path.name} {error}") from None
    except (ValueError, RecursionError):
        raise AnalysisError(f"{path.name} is torn") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise AnalysisError(f"{path.name} is not of format {FORMAT}")
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """`value`, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float:
    """`value`, or NaN."""
    return float(value) if type(value) in (int, float) and abs(value) < 1e30 else math.nan


def printable_name(value: Any) -> str:
    """A name of at most LONGEST_NAME characters, all printable."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:LONGEST_NAME])
