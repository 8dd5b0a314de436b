"""A registry or an artifact store that refuses while MLflow is well: a line tells it, nothing else is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes import journals
from fakes.embedded import embedded, models_of, state_of
from fakes.journals import Embedded, difference, write_share
from fakes.tracking import content, runs_in, serving, the_run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from suite.cli.main import main
from suite.sweeps.stored import save_sweep
from suite.track import store, sync, uploads
from suite.track.follow import follow

__all__ = ["embedded"]
pytestmark = pytest.mark.usefixtures("embedded")


class Refusing:
    """A client that raises `error` instead of making the calls `names`."""

    def __init__(self, client: Any, names: set[str], error: Exception) -> None:
        self._client, self._names, self._error = client, names, error

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name in self._names else getattr(self._client, name)

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise self._error


def refuse(patch: pytest.MonkeyPatch, names: set[str], error: Exception) -> None:
    real = store.client
    patch.setattr(store, "client", lambda where: Refusing(real(where), names, error))


def test_a_registry_that_refuses_is_reported_in_a_line_once_and_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, refused = journals.stages(3), dict[str, str]()
    write_share(tmp_path, stages, 0)
    save_sweep(tmp_path, "demo", {}, stages, "Which width does it take?")
    with monkeypatch.context() as patch:
        refuse(patch, {"create_model_version"}, MlflowException("Invalid model version source\nand more"))
        (line,) = follow("demo", stages, tmp_path, tmp_path / "none", every_seconds=0.1)
        sync.sync("demo", stages, tmp_path, refused=refused)
    assert line == (
        "MLflow refused to register the best recipes: MlflowException: Invalid model version source; "
        "the next sync tries again"
    )
    assert refused == {"registry": line}
    client = MlflowClient(store.uri(tmp_path))
    note = client.get_experiment_by_name("demo").tags["mlflow.note.content"]
    assert "Which width does it take?" in note
    assert not client.search_model_versions("name = 'demo'")
    sync.sync("demo", stages, tmp_path)
    assert set(models_of(store.uri(tmp_path))) == {"best-w2", "best-w2a2"}


def test_a_registry_that_cannot_be_reached_because_mlflow_is_away_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_share(tmp_path, journals.stages(3), 0)
    away = {"search_registered_models", "get_experiment"}
    sync.sync("demo", [], tmp_path)
    monkeypatch.setattr(sync, "describe", lambda *_: None)  # the only other call of these names
    refuse(monkeypatch, away, MlflowException("connection refused"))
    with pytest.raises(store.AwayError, match="connection refused"):
        sync.sync("demo", journals.stages(3), tmp_path)


NO_BOTO3 = ModuleNotFoundError("No module named 'boto3'\nand more")


def _without_empty_tags(runs: Path) -> Any:
    found, models, files = state_of(runs)
    for key, (*rest, tags, points) in found.items():
        found[key] = (*rest, {name: value for name, value in tags.items() if value}, points)
    return found, models, {key: sorted(names) for key, names in files.items()}


def test_an_artifact_store_that_refuses_costs_the_files_alone_and_gets_them_when_it_takes_them(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, report, other = journals.stages(3), tmp_path / "report", tmp_path / "undisturbed"
    write_share(other, stages, 0)
    for stage in stages:
        shutil.copytree(other / stage.key, tmp_path / stage.key)
    report.mkdir()
    (report / "table.md").write_text("a table")
    (other / "mlflow.db").write_bytes(database)
    sync.sync("demo", stages, other, report)
    whole = _without_empty_tags(other)
    with monkeypatch.context() as patch:
        refuse(patch, {"log_artifact", "list_artifacts"}, NO_BOTO3)
        lines = list(follow("demo", stages, tmp_path, report, every_seconds=0.1))
    why = "ModuleNotFoundError: No module named 'boto3'"
    assert lines == [
        f"MLflow has no curve.csv of {stages[0].name}: {why}; missing beside it: 3 files; the next sync tries again",
        f"MLflow refused to list the report's files: {why}; the next sync tries again",
    ]
    assert difference(Embedded(tmp_path), "demo", tmp_path, stages) == (3 * journals.EPOCHS * 7, 0, 0)
    for stage in stages:
        run = the_run(tmp_path, stage)
        assert run.info.status == "FINISHED"
        assert run.data.params == {name: str(value) for name, value in stage.params.items()}
        assert run.data.tags["artifacts_left_out"] == f"curve.csv: {why}"
    assert set(models_of(store.uri(tmp_path))) == {"best-w2", "best-w2a2"}
    refused: dict[str, str] = {}
    sync.sync("demo", stages, tmp_path, report, refused)
    assert refused == {}
    assert _without_empty_tags(tmp_path) == whole


def test_files_are_not_tried_for_long_in_a_sync_whose_store_refuses_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_share(tmp_path, journals.stages(3), 0)
    with monkeypatch.context() as patch:
        patch.setattr(uploads, "PATIENCE_SECONDS", 0.0)
        refuse(patch, {"log_artifact"}, PermissionError(13, "Permission denied"))
        sync.sync("demo", journals.stages(3), tmp_path)
    recorded = [the_run(tmp_path, stage).data.tags["artifacts_left_out"] for stage in journals.stages(3)]
    untried = "curve.csv: not tried: others were refused"
    assert recorded == ["curve.csv: PermissionError: [Errno 13] Permission denied", untried, untried]


def test_a_refusal_is_reported_without_the_password_of_an_address(tmp_path: Path) -> None:
    sync.sync("demo", [], tmp_path)
    client = MlflowClient(store.uri(tmp_path))
    experiment = client.get_experiment_by_name("demo").experiment_id
    found = uploads.Uploads(client, experiment, {}).why(OSError("no http://bob:secret@host/x\nand more"))
    assert found == "OSError: no http://host/x"


@pytest.mark.long  # a store that refuses is above, without a server
def test_a_server_that_leaves_files_to_a_folder_nobody_can_write_has_all_else_and_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages, report, blocked = journals.stages(3), tmp_path / "results" / "demo", tmp_path / "blocked"
    write_share(tmp_path, stages, 0)
    save_sweep(tmp_path, "demo", {}, stages)
    report.mkdir(parents=True)
    (report / "table.md").write_text("a table")
    blocked.write_text("no folder, so that not even root can write below it")
    database = f"sqlite:///{tmp_path}/server.db"
    place = ("--default-artifact-root", str(blocked / "artifacts"), "--backend-store-uri", database)
    with serving("--no-serve-artifacts", *place, cwd=tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        (line,) = follow("demo", stages, tmp_path, report, every_seconds=0.1)
        assert line.startswith("MLflow has no curve.csv of") and "NotADirectoryError" in line
        words = ["sync", "demo", "--runs", str(tmp_path), "--report", str(report.parent)]
        assert main(words) == 0
        said = capsys.readouterr().out
        assert line in said and "refused" not in said and "MLflow has all runs of demo" in said
        found = content(address)
        counted = sum(len(found[stage.key][3]) for stage in stages)
        assert counted == 3 * journals.EPOCHS * 7
        assert {found[stage.key][0][1] for stage in stages} == {"FINISHED"}
        assert set(models_of(address)) == {"best-w2", "best-w2a2"}
        client, runs = MlflowClient(address), runs_in(address)
        versions = client.search_model_versions("name = 'demo'")
        assert {version.source for version in versions} < {run.info.artifact_uri for run in runs}
        blocked.unlink()
        assert main(words) == 0
        assert "MLflow has no" not in capsys.readouterr().out
        names = [[item.path for item in client.list_artifacts(run.info.run_id)] for run in runs]
        assert sorted(names) == [["curve.csv"]] * 3 + [["table.md"]]
