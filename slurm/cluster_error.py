"""The error of a cluster.toml that is wrong somewhere."""

from __future__ import annotations

from suite.recipe.errors import SuiteError

Location = tuple[str, ...]
"""Where a value lies in the file: ("minutes",), or ("retries", "node") in the table [retries]."""


class ClusterError(SuiteError):
    """A value of a cluster file is wrong; `at` is where it lies, the message what is wrong and what to write."""

    def __init__(self, at: Location, message: str) -> None:
        super().__init__(f"{'.'.join(at)} {message}")
        self.at, self.message = at, message
