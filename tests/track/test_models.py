"""The best recipes load from MLflow's registry, and predict."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.embedded import embedded
from fakes.exported import SGD, Finished
from fakes.missing import missing
from mlflow.tracking import MlflowClient

from suite.cli.main import main
from suite.export import agreement
from suite.export.runtimes import why_not
from suite.formats.rebuild import rebuilt
from suite.methods.apot import Apot
from suite.methods.mse import Mse
from suite.recipe import Calibration
from suite.recipe.errors import SuiteError
from suite.track import models, store

__all__ = ["embedded"]


def aliases(client: MlflowClient, sweep: str) -> dict[str, str]:
    (model,) = client.search_registered_models(f"name = '{sweep}'")
    return {alias: str(number) for alias, number in model.aliases.items()}


@pytest.mark.usefixtures("embedded")
def test_a_registered_version_loads_and_predicts_what_its_run_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    if reason := why_not("onnxruntime"):
        missing(reason)
    finished = Finished(tmp_path)
    (tmp_path / "mlflow.db").rename(finished.folders.runs / "mlflow.db")
    recipe = finished.recipe(Mse(8, 8, feed=Calibration(images=64, batch=64)))
    refused = finished.recipe(Apot(4, 4, feed=SGD))
    runs = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data)]
    runs += ["--report", str(tmp_path / "none")]
    assert main(["sync", "small", *runs]) == 0
    said = " ".join(capsys.readouterr().out.split())
    where = store.uri(finished.folders.runs)
    client = MlflowClient(where)
    found = aliases(client, "small")
    (eight,) = (alias for alias in found if alias.startswith("best-w8"))
    (four,) = (alias for alias in found if alias.startswith("best-w4"))
    assert "cannot be loaded" not in said
    for alias, key, kind in ((eight, recipe.key, "onnx"), (four, refused.key, "pt2")):
        tags = client.get_model_version("small", found[alias]).tags
        assert (tags["stage_key"], tags["model"]) == (key, kind)

    with monkeypatch.context() as user:
        user.setenv("MLFLOW_TRACKING_URI", where)
        loaded = mlflow.pyfunc.load_model(f"models:/small@{eight}")
        simulated = mlflow.pyfunc.load_model(f"models:/small@{four}")
    source = rebuilt(recipe, finished.folders)
    x = next(agreement.batches(source.images("test"), 20))
    with torch.no_grad():
        expected = source.model(x)
    logits = loaded.predict(x.numpy())["logits"]
    assert logits.shape == (20, 10) and np.abs(logits - expected.numpy()).mean() < 0.02
    assert loaded.metadata.metadata["stage_key"] == recipe.key

    model = rebuilt(refused, finished.folders).model
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(simulated.predict(x.numpy())), model(x), atol=1e-5)
    version = client.get_model_version("small", aliases(client, "small")[four])
    assert "simulated in float32" in version.description

    monkeypatch.setattr(models, "_replace", lambda *_: pytest.fail("nothing is to be made again"))
    assert main(["sync", "small", *runs]) == 0
    assert aliases(client, "small") == found
    versions = [str(one.version) for one in client.search_model_versions("name = 'small'")]
    assert sorted(versions) == sorted(found.values())


@pytest.mark.parametrize(
    "method", [Mse(8, 8, feed=Calibration(images=64, batch=64)), Apot(4, 4, feed=SGD)], ids=str
)
def test_a_network_that_answers_otherwise_than_its_run_gets_no_model(tmp_path: Path, method: Any) -> None:
    """Neither as integers nor, where those cannot be, as its simulation."""
    if reason := why_not("onnxruntime"):
        missing(reason)
    finished = Finished(tmp_path)
    recipe = finished.recipe(method)
    file = finished.folders.runs / recipe.key / "outcome.json"
    outcome = json.loads(file.read_text())
    right = np.frombuffer(base64.b64decode(outcome["correct"]), np.uint8)
    outcome.pop("crc32", None)
    file.write_text(json.dumps(outcome | {"correct": base64.b64encode((~right).tobytes()).decode()}))
    folder = tmp_path / "fresh"
    folder.mkdir()
    with pytest.raises(SuiteError, match="test images right or wrong otherwise than its run"):
        models._write(recipe, folder, finished.folders)
    assert not list(folder.iterdir())
