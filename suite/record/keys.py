"""The keys of stages, which name run directories, and the lists of those that were cancelled."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from suite.recipe.errors import SuiteError
from suite.record.files import read_bytes


def is_key(value: Any) -> bool:
    """Whether it is a key, and so may name a run directory: a text of 16 hex digits. Others could lead elsewhere."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def read_skipped(file: Path) -> set[str]:
    """The keys in the list of stages that were cancelled while their job goes on; none where there is no list.

    Raises SuiteError where it is damaged: without it the stages would be run.
    """
    try:
        listed = json.loads(read_bytes(file))
        if not (isinstance(listed, list) and all(map(is_key, listed))):
            raise ValueError
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, RecursionError):
        raise SuiteError(
            f"{file}, the list of its cancelled stages, is damaged; remove it and cancel them again"
        ) from None
    return set(listed)
