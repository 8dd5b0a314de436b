"""A runs folder that was renamed, copied or brought to another machine: the addresses in its database follow it.

MLflow keeps whole addresses of the artifacts of an experiment, a run and a model version, and would write those of
the next runs to where the folder was before.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

ARTIFACTS = "mlflow-artifacts"
"""The folder of the artifacts, in the runs folder."""

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The columns of MLflow's tables that hold addresses."""


def former_folder(database: Path) -> str:
    """The address, `file:///...`, of the runs folder for which `database` was written last, where that is another than
    the one that it lies in; else nothing."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as opened:
        rows = opened.execute(
            "select artifact_location from experiments where artifact_location like ? escape '!'",
            (f"file:///%/{ARTIFACTS}/%",),
        ).fetchall()
    former = {str(row[0]).rpartition(f"/{ARTIFACTS}/")[0] for row in rows}
    return next(iter(sorted(former - {database.resolve().parent.as_uri()})), "")


def follow_folder(database: Path) -> None:
    """Let all addresses in `database` that begin with a former folder of it begin with the one that it lies in."""
    here, followed = database.resolve().parent, set[str]()
    # A trigger in the database of somebody else may put an address back.
    while (former := former_folder(database)) and former not in followed:
        followed.add(former)
        with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
            for table, column in ADDRESSES:
                _replace(opened, table, column, f"{former}/", f"{here.as_uri()}/")
            old = f"{unquote(urlsplit(former).path)}/"
            _replace(opened, "model_version_tags", "value", old, f"{here}/")


def _replace(opened: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    opened.execute(
        f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",
        (new, len(old) + 1, len(old), old),
    )
