"""The database of somebody else's runs folder has nothing written outside that folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fakes import journals
from fakes.embedded import embedded
from fakes.journals import write_run, write_share
from mlflow.tracking import MlflowClient

from suite.recipe.errors import SuiteError
from suite.record.journal import Journal, read_events
from suite.track import artifact_folders, store, sync

__all__ = ["embedded"]
pytestmark = pytest.mark.usefixtures("embedded")
STAGE = journals.stages(1)[0]
OWNER = "ssh-ed25519 the owner's\n"


def foreign(runs: Path, home: Path, statement: str, artifacts: Path) -> None:
    """A runs folder with a run that lists the file `authorized_keys`, whose database had `statement` run by somebody
    who knows where `home` is."""
    home.mkdir()
    (home / "authorized_keys").write_text(OWNER)
    write_run(runs, STAGE)
    journal = Journal(runs / STAGE.key, afterwards=True)
    journal.artifact("authorized_keys", b"ssh-ed25519 somebody else's\n")
    journal.close()
    client = MlflowClient(store.uri(runs))
    experiment = client.create_experiment("demo", artifact_location=artifacts.as_uri())
    began = int(read_events(runs / STAGE.key)[0]["time"] * 1000)
    client.create_run(experiment, start_time=began, tags={"stage_key": STAGE.key}, run_name="an evil run")
    with closing(sqlite3.connect(runs / "mlflow.db")) as database, database:
        database.execute(statement.format(home=home.as_uri()))


STATEMENTS = {
    "the run": "update runs set artifact_uri = '{home}'",
    "the experiment": "update experiments set artifact_location = '{home}' where name = 'demo'",
    "a path that climbs out": "update runs set artifact_uri = artifact_uri || '/../../../../../home'",
    "a link that leads out": "update runs set artifact_uri = artifact_uri || '/../../link'",
    "another computer": "update runs set artifact_uri = 's3://bucket/x'",
    "no address": "update runs set artifact_uri = 'relative'",
    "a trigger": "create trigger t after insert on tags begin update runs set artifact_uri = '{home}'; end",
}


@pytest.mark.parametrize("what", STATEMENTS)
def test_a_database_that_names_another_place_has_nothing_written_there(tmp_path: Path, what: str) -> None:
    home, artifacts = tmp_path / "home", tmp_path / artifact_folders.ARTIFACTS / "demo"
    artifacts.mkdir(parents=True)
    (artifacts / "link").symlink_to(home)
    foreign(tmp_path, home, STATEMENTS[what], artifacts)
    with pytest.raises(
        SuiteError, match="which is not in .*/mlflow-artifacts; nothing is written"
    ) as refused:
        sync.sync("demo", [STAGE], tmp_path)
    assert ("experiment demo" if what == "the experiment" else "run an evil run") in str(refused.value)
    assert [file.name for file in home.iterdir()] == ["authorized_keys"]
    assert (home / "authorized_keys").read_text() == OWNER


def test_a_link_in_the_place_of_an_artifact_is_not_written_through(tmp_path: Path) -> None:
    home, artifacts = tmp_path / "home", tmp_path / artifact_folders.ARTIFACTS / "demo"
    foreign(tmp_path, home, "select 1 -- {home}", artifacts)
    client = MlflowClient(store.uri(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    place = artifacts / run.info.run_id / "artifacts"
    place.mkdir(parents=True)
    (place / "authorized_keys").symlink_to(home / "authorized_keys")
    with pytest.raises(SuiteError, match="authorized_keys is a link, which is not followed"):
        sync.sync("demo", [STAGE], tmp_path)
    assert (home / "authorized_keys").read_text() == OWNER


def test_a_folder_of_artifacts_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / artifact_folders.ARTIFACTS).symlink_to(tmp_path / "home")
    write_run(tmp_path, STAGE)
    with pytest.raises(SuiteError, match="which is not in .*; nothing is written there"):
        sync.sync("demo", [STAGE], tmp_path)
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("name", ["mlflow.lock", "mlflow.db", "mlflow.db-wal"])
def test_a_link_in_the_place_of_the_database_or_its_lock_is_not_opened(tmp_path: Path, name: str) -> None:
    """Of the lock file the content would be the folder's id, which the database keeps for all to read."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "secret")
    write_run(tmp_path, STAGE)
    with pytest.raises(SuiteError, match=f"{name} is a link, which is not followed"):
        sync.sync("demo", [STAGE], tmp_path)
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_database_that_puts_an_address_back_is_followed_once(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere" / artifact_folders.ARTIFACTS / "demo"
    trigger = "create trigger t after update on experiments begin update experiments "
    trigger += f"set artifact_location = '{elsewhere.as_uri()}' where name = 'demo'; end"
    foreign(tmp_path, home, trigger, elsewhere)
    with pytest.raises(SuiteError, match="experiment demo in .* which is not in"):
        sync.sync("demo", [STAGE], tmp_path)
    assert not elsewhere.exists()


def test_a_runs_folder_that_is_a_link_is_synced(tmp_path: Path, database: bytes) -> None:
    real, runs = tmp_path / "disk", tmp_path / "runs"
    real.mkdir()
    runs.symlink_to(real)
    write_run(runs, STAGE)
    (runs / "mlflow.db").write_bytes(database)
    sync.sync("demo", [STAGE], runs)
    assert [file.name for file in (real / artifact_folders.ARTIFACTS).rglob("*.*")] == ["curve.csv"]


def test_a_model_version_whose_files_are_elsewhere_gives_way_to_one_of_the_run(tmp_path: Path) -> None:
    stages = journals.stages(3)
    write_share(tmp_path, stages, 0)
    sync.sync("demo", stages, tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("update model_versions set source = 'file:///home/evil', storage_location = source")
    sync.sync("demo", stages, tmp_path)
    client = MlflowClient(store.uri(tmp_path))
    (model,) = client.search_registered_models("name = 'demo'")
    sources = [client.get_model_version("demo", number).source for number in model.aliases.values()]
    assert len(sources) == 2 and all(source.startswith(tmp_path.as_uri()) for source in sources), sources
