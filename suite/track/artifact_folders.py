"""Where the database in a runs folder may have artifacts written: below RUNS/mlflow-artifacts, whatever it says.

A runs folder of somebody else brings its database along, and MLflow writes to whichever address a run has there.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from suite.recipe.errors import SuiteError
from suite.track.moved import ARTIFACTS


def folder_within(address: str, base: Path) -> Path | None:
    """The folder that MLflow takes `address` for; None unless it lies, links followed, in `base`, which is taken as it
    is written."""
    try:
        parts = urlsplit(address)
        folder = Path(url2pathname(parts.path))
        if parts.scheme == "file" and not (parts.netloc or parts.query or parts.fragment):
            return folder if folder.resolve().is_relative_to(base) else None
    except (ValueError, OSError, RuntimeError):  # NUL in it, or a loop of links
        pass
    return None


def check_inside(address: str, runs: Path, what: str) -> Path:
    """The folder that the database in `runs` has for `what`. Raises SuiteError for one elsewhere than in
    RUNS/mlflow-artifacts."""
    base = runs.resolve() / ARTIFACTS
    folder = folder_within(address, base)
    if folder is None:
        raise SuiteError(
            f"{base.parent / 'mlflow.db'} has the artifacts of {what} in {address!r}, which is not in {base}; nothing "
            f"is written there. Move the database away and sync again: the journals hold everything"
        )
    return folder


def check_is_no_link(file: Path) -> None:
    """Raise SuiteError for a file that is a link: who opens it would write to where it leads."""
    if file.is_symlink():
        raise SuiteError(
            f"{file} is a link, which is not followed; put the file itself in its place, or remove it"
        )
