"""A model that loads for each version of the registry that an alias names: the exported ONNX file in MLflow's format.

`mlflow.pyfunc.load_model("models:/quick@best-w8a8").predict(images)` needs mlflow and onnxruntime, not the suite.
`images` are normalized, float32 [n, channels, height, width]; the answer is {"logits": float32 [n, classes]}. Of a
recipe whose levels are no integers times a scale, or that torch's exporter for ONNX cannot take, it is the simulation
as a program of torch.export, which needs torch and answers with the array alone. A network that answers otherwise than
its run did gets no model. MLflow fixes where a version's files are, so that a version gets its model by a new one that
takes its place.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from suite.export.agreement import Simulation
from suite.export.exporting import compared_with_run, export
from suite.export.request import Request
from suite.export.runtimes import check_installed
from suite.formats.rebuild import rebuilt
from suite.integers.levels import NoIntegersError
from suite.recipe import Recipe
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.secrets import without_secrets
from suite.sweeps.stored import find_stages
from suite.track import store

IMAGES = 500
"""Of the test split on which the file is compared with the simulation before it is registered."""
MODEL, NO_MODEL = "model", "no_model"
"""Tags of a version: its format, or why it has none."""


def add_models(sweep: str, folders: Folders, doing: Callable[[str], None]) -> list[str]:
    """Give every version of the sweep that an alias names, and that has none yet, its model; a line for each that gets
    none, and one where the packages are missing. `doing` is called with the one that is made. Safe to repeat, and to
    be cut off.

    Raises AwayError where MLflow fails.
    """
    with store.explained(folders.runs):
        client = store.client(store.uri(folders.runs))
        listed = client.search_registered_models(f"name = '{sweep}'")
        aliases = {name: str(number) for name, number in listed[0].aliases.items()} if listed else {}
        versions = {str(one.version): one for one in client.search_model_versions(f"name = '{sweep}'")}
        wanted = {
            alias: versions[number]
            for alias, number in aliases.items()
            if number in versions and not {MODEL, NO_MODEL} & versions[number].tags.keys()
        }
        if not wanted:
            return []
        try:
            check_installed()
        except SuiteError as error:
            return [f"the model versions of {sweep} cannot be loaded yet: {error}"]
        lines = []
        for alias, version in wanted.items():
            doing(f"the model of {alias}")
            try:
                _replace(client, sweep, alias, version, folders)
            except (
                Exception
            ) as error:  # a store raises what its library has: ImportError, botocore's, OSError
                words = without_secrets(str(error))
                lines.append(f"models:/{sweep}@{alias} cannot be loaded: {words}")
                if isinstance(error, SuiteError):  # it would say so again; a full disk may have room later
                    client.set_model_version_tag(sweep, version.version, NO_MODEL, words[:4000])
        return lines


def _replace(client: Any, sweep: str, alias: str, version: Any, folders: Folders) -> None:
    (stage,) = find_stages(folders.runs, [version.tags["stage_key"]])
    if not isinstance(stage, Recipe):
        raise SuiteError(f"{stage.name} is a float network; only recipes have model versions")
    folder = folders.runs / stage.key / "model"
    if not (folder / "MLmodel").is_file():
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="model-") as fresh:
            _write(stage, Path(fresh), folders)
            (Path(fresh) / "model").replace(folder)
    source = folder.resolve().as_uri()
    if store.server():
        client.log_artifacts(version.run_id, str(folder), "model")
        source = f"{client.get_run(version.run_id).info.artifact_uri}/model"
    kind = "onnx" if (folder / "model.onnx").is_file() else "pt2"
    simulated = "" if kind == "onnx" else ", simulated in float32: it cannot be exported as integers"
    made = client.create_model_version(
        sweep,
        source,
        version.run_id,
        tags={**version.tags, MODEL: kind},
        description=f"{version.description}{simulated}",
    )
    client.set_registered_model_alias(sweep, alias, str(made.version))
    client.delete_model_version(sweep, version.version)


def _write(recipe: Recipe, folder: Path, folders: Folders) -> None:
    """The model of a finished recipe in MLflow's format, in `folder`, with the record of its export; where no file of
    integers can be made of it, its simulation as a program of torch.export. Raises SuiteError as `export` does."""
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    data = recipe.start.dataset
    images = TensorSpec(np.dtype(np.float32), (-1, data.channels, data.size, data.size))
    shared: dict[str, Any] = {"signature": ModelSignature(inputs=Schema([images]))}
    shared["metadata"] = {"stage_key": recipe.key, "mean": data.mean, "std": data.std}
    try:
        request = Request(out=folder / "exported.onnx", images=IMAGES, probes=False)
        file, beside, _ = export(recipe, folders, request)
    except NoIntegersError as reason:
        _write_simulation(recipe, folder, folders, shared, reason)
        return
    packages = _pinned("onnx", "onnxruntime", "numpy")
    mlflow.onnx.save_model(onnx.load(str(file)), str(folder / "model"), pip_requirements=packages, **shared)
    shutil.copy(beside, folder / "model" / "export.json")


def _write_simulation(
    recipe: Recipe, folder: Path, folders: Folders, shared: dict[str, Any], reason: NoIntegersError
) -> None:
    import mlflow.pytorch
    import torch

    source = rebuilt(recipe, folders)
    model, data = source.model, recipe.start.dataset
    compared_with_run(source, Simulation.of(model, source.images("test"), IMAGES))
    example = torch.randn(2, data.channels, data.size, data.size, generator=torch.Generator().manual_seed(0))
    try:
        mlflow.pytorch.save_model(
            model,
            str(folder / "model"),
            serialization_format="pt2",
            input_example=example.numpy(),
            pip_requirements=_pinned("torch", "numpy"),
            **shared,
        )
        loaded = mlflow.pyfunc.load_model(str(folder / "model"))
        with torch.no_grad():
            apart = (model(example) - torch.from_numpy(loaded.predict(example.numpy()))).abs().max()
    except Exception as error:  # of whatever torch.export meets in the network
        raise SuiteError(f"{reason}; nor as a program: {type(error).__name__}: {error}") from error
    if float(apart) > 1e-4:
        raise SuiteError(f"{reason}; nor as a program, whose logits differ by {float(apart):.3g}")


def _pinned(*names: str) -> list[str]:
    return [f"{name}=={metadata.version(name)}" for name in names]
