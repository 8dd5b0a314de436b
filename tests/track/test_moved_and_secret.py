"""Artifacts lie where the runs are, wherever the runs folder was before; no message shows a password."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fakes import journals
from fakes.journals import write_share
from mlflow.tracking import MlflowClient

from suite.cli.main import main
from suite.recipe.errors import SuiteError
from suite.sweeps.stored import save_sweep
from suite.track import store, sync
from suite.track.moved import ADDRESSES, former_folder


def addresses(runs: Path) -> list[str]:
    """All that the database holds."""
    with closing(sqlite3.connect(runs / "mlflow.db")) as opened:
        asked = [f"select {column} from {table}" for table, column in ADDRESSES]
        asked.append("select value from model_version_tags where key = 'run_directory'")
        found = [str(row[0]) for query in asked for row in opened.execute(query) if row[0]]
    return [one for one in found if "mlruns" not in one]  # the experiment that MLflow makes for itself


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_artifacts_go_to_where_the_runs_folder_is_by_now(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    stages, old, new = journals.stages(3), tmp_path / "it's old", tmp_path / "new % 50"
    write_share(old, stages, 0)
    (old / "mlflow.db").write_bytes(database)
    sync.sync("demo", stages[:2], old)
    before = {file.relative_to(old) for file in old.rglob("*")}
    (old.rename if how == "renamed" else lambda to: shutil.copytree(old, to))(new)
    kept = addresses(old) if how == "copied" else []
    assert former_folder(new / "mlflow.db") == old.as_uri()
    sync.sync("demo", stages, new)
    if how == "renamed":
        assert not old.exists(), "nothing is written where it was before"
    else:
        assert {file.relative_to(old) for file in old.rglob("*")} == before and addresses(old) == kept
    found = addresses(new)
    assert len(found) > 5 and all(unquote(urlsplit(one).path).startswith(f"{new}/") for one in found), found
    assert not former_folder(new / "mlflow.db")
    client = MlflowClient(store.uri(new))
    runs = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert len(runs) == 3
    assert [[item.path for item in client.list_artifacts(run.info.run_id)] for run in runs] == [
        ["curve.csv"]
    ] * 3


ADDRESSES_WITH_PASSWORD = (
    "http://u:hunter2@127.0.0.1:9",
    "mysql+pymysql://u:hunter2@127.0.0.1/db",
    "postgresql://u:hunter2@127.0.0.1:9/db",
    "postgresql+nodriver://u:hun/ter2%40x@127.0.0.1/db?password=hunter2",
    "nonsense://u:hunter2@x",
)


@pytest.mark.parametrize("address", ADDRESSES_WITH_PASSWORD)
def test_an_address_with_a_password_fails_in_a_line_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_MAX_RETRIES"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 2)  # a tenth of a second, not 102
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    save_sweep(tmp_path, "demo", {}, journals.stages(2))
    assert main(["sync", "demo", "--runs", str(tmp_path)]) == 2
    said = "".join(capsys.readouterr())
    for secret in ("hunter2", "hun/ter2", "ter2%40x"):
        assert secret not in said
    assert "Traceback" not in said and said.startswith("error: ") and said.count("\n") == 1, said
    assert "hunter2" not in store.how_to_open("1", tmp_path) and "hunter2" not in store.shown(tmp_path)


def test_a_database_driver_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://u:hunter2@127.0.0.1/db")
    with (
        pytest.raises(
            SuiteError, match="mysql.pymysql://127.0.0.1/db needs the Python package pymysql, which is"
        ),
        store.explained(tmp_path),
    ):
        raise ModuleNotFoundError("No module named 'pymysql'", name="pymysql")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://u:p@h:5000/x failed", "at http://h:5000/x failed"),
        ("no //path/a@b here", "no //path/a@b here"),
        ("postgresql://h/db?sslmode=off&password=p", "postgresql://h/db?sslmode=***&password=***"),
        ("the token abcdef is refused", "the token *** is refused"),
    ],
)
def test_secrets_are_taken_out_of_what_libraries_say(
    monkeypatch: pytest.MonkeyPatch, text: str, shown: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abcdef")
    assert store.without_secrets(text) == shown
