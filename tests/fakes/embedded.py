"""MLflow's database in the runs folder, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from fakes.tracking import content, runs_in
from suite.track import store


@pytest.fixture
def embedded(tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, and in `tmp_path` a prepared database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(database)


def models_of(where: str) -> dict[str, str]:
    """Which stage each alias names."""
    client = MlflowClient(where)
    versions = {str(v.version): v.tags["stage_key"] for v in client.search_model_versions("name = 'demo'")}
    (model,) = client.search_registered_models("name = 'demo'")
    assert len(versions) == len(set(versions.values())), "a stage was registered twice"
    return {alias: versions[str(version)] for alias, version in model.aliases.items()}


def state_of(runs: Path) -> tuple[dict[str, Any], dict[str, str], dict[str, list[str]]]:
    found, client = content(store.uri(runs)), MlflowClient(store.uri(runs))
    found["report demo"] = found["report demo"][1:]  # but for its times, which are the sync's
    files = {
        run.data.tags["stage_key"]: [item.path for item in client.list_artifacts(run.info.run_id)]
        for run in runs_in(store.uri(runs))
    }
    return found, models_of(store.uri(runs)), files
