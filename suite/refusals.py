"""What MLflow refuses of a sync while it is well itself: its registry a version, its artifact store a file.

The store may be S3 without credentials, or a folder of the server's disk; that costs no metric, and is tried again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Refusals:
    """Of one sync; `lines` has one for each kind of thing that was refused."""

    def __init__(self, client: Any, experiment: str, lines: dict[str, str]) -> None:
        self._client, self._experiment, self.lines = client, experiment, lines

    @contextmanager
    def told(self, kind: str, what: str) -> Iterator[None]:
        """What goes wrong as a line; the next sync tries again."""
        try:
            yield
        except Exception as error:  # a store raises what its library has: ImportError, botocore's, OSError
            self.lines[kind] = f"MLflow refused {what}: {self.why(error)}; the next sync tries again"

    def why(self, error: Exception) -> str:
        """In a line. Raises what MLflow says where it is away altogether: that is no refusal."""
        self._client.get_experiment(self._experiment)
        first = (str(error).strip().splitlines() or [""])[0][:300]
        first = re.sub(r"//[^/@\s]*@", "//", first)  # an address may hold a password, and tags are for all
        return f"{type(error).__name__}: {first}" if first else type(error).__name__
