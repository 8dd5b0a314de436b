"""Where MLflow is, a server or the database in the runs folder, and what goes wrong there as one error."""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from suite.recipe.errors import SuiteError
from suite.record.secrets import safe_line, without_login, without_secrets
from suite.record.waiting import lock_exclusively
from suite.track.artifact_folders import check_is_no_link
from suite.track.moved import follow_folder, former_folder
from suite.track.ui_view import pages

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

EMBEDDED_PAGE = "http://127.0.0.1:5000"
"""Where the command of `how_to_open` serves the embedded database."""


class AwayError(SuiteError):
    """MLflow did not answer, or could not do what it was asked for; a later sync may find it back."""


def uri(runs: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file in the runs folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _embedded(runs / "mlflow.db")


def shown(runs: Path) -> str:
    """The same without a name or password that may stand in it."""
    return without_secrets(uri(runs))


def _embedded(file: Path) -> str:
    return f"sqlite:///{file.resolve()}"


def is_embedded(runs: Path) -> bool:
    """Whether MLflow is a database file, without a server."""
    return uri(runs).startswith("sqlite:")


def server() -> str:
    """The address of the server without a name or password that may stand in it; empty where there is none."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    return without_login(address) if address.startswith(("http://", "https://")) else ""


@contextmanager
def only_one(runs: Path) -> Iterator[str]:
    """Hold the lock of the runs folder; gives the id of the folder, which the lock file keeps."""
    check_is_no_link(runs / "mlflow.lock")
    with (runs / "mlflow.lock").open("a+") as stream:
        lock_exclusively(stream, f"another process brings MLflow up to date with {runs}")
        stream.seek(0)
        identity = stream.read()
        if not identity:
            identity = uuid.uuid4().hex
            stream.write(identity)
            stream.flush()
        yield identity


@contextmanager
def explained(runs: Path) -> Iterator[None]:
    """What goes wrong in MLflow as an AwayError in one line."""
    for name, value in SETTINGS.items():  # before the import, which reads some of them
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("suite", "mlflow"):
            raise
        raise AwayError(
            f"MLflow at {shown(runs)} needs the Python package {error.name}, which is not installed; pip install it"
        ) from None
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        first = safe_line(error)
        if "Caused by" in first:  # urllib3 nests the reason in its whole story
            first = first.rpartition("): ")[2].removesuffix('"))')
        remedy = "check that the server runs and that MLFLOW_TRACKING_URI is right"
        if is_embedded(runs):
            remedy = f"if it stays so, move {runs / 'mlflow.db'} away: the journals hold everything"
        raise AwayError(f"MLflow at {shown(runs)} failed: {first}; {remedy}") from None


def client(where: str) -> Any:
    """A client of MLflow at this address."""
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A database that does not answer is asked ten times in 102 s, which it would report in five lines each.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
    return MlflowClient(where)


def prepare(runs: Path) -> None:
    """Make the embedded database, once, in one process: two that open a fresh one at once break it for good. One that
    is there follows its folder, should that have moved.

    It is made under another name and renamed when it is whole, so that a process killed here leaves none, not a half.
    """
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / "mlflow.db"
    if uri(runs) != _embedded(file):
        return
    for name in ("mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db-journal"):
        check_is_no_link(runs / name)
    if file.exists():
        with suppress(sqlite3.Error):  # the next sync says what is wrong with it
            if former_folder(file):
                with only_one(runs):
                    follow_folder(file)
        return
    with only_one(runs), explained(runs):
        if file.exists():
            return
        fresh = runs / "mlflow.db.writing"
        fresh.unlink(missing_ok=True)
        client(_embedded(fresh)).search_experiments(max_results=1)
        with closing(sqlite3.connect(fresh)) as database:
            database.execute("pragma journal_mode=wal")
        fresh.replace(file)


def how_to_open(experiment: str, runs: Path) -> str:
    """The command that opens MLflow on these runs, where it is embedded, and the address of its page."""
    if address := server():
        return pages(address, experiment)["table"]
    mlflow = Path(sys.executable).with_name("mlflow")
    shown = os.path.relpath(mlflow) if mlflow.is_relative_to(Path.cwd()) else str(mlflow)
    store = (
        shlex.quote(uri(runs)) if is_embedded(runs) else '"$MLFLOW_TRACKING_URI"'
    )  # it may hold a password
    command = f"{shlex.quote(shown)} server --workers 1 --port 5000 --backend-store-uri {store}"
    settings = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"
    return f"{settings} {command}\n{pages(EMBEDDED_PAGE, experiment)['table']}"
