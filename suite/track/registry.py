"""The best recipe of each pair of widths as a model version in MLflow's registry: the sweep is the model, `best-w4a4`
an alias.

Nothing is uploaded: a version names its run, and its run directory or, with a server, the folder of the run's
artifacts there. By which client is the caller's; `register` is safe to repeat, and to be cut off anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from suite.recipe import FLOAT_BITS, Recipe
from suite.record.status import Status
from suite.track.artifact_folders import folder_within
from suite.track.mlflow_run import MlflowRun
from suite.track.result import configuration


def best_by_width(statuses: Sequence[Status]) -> dict[str, Status]:
    """For each pair of widths, narrowest first, a run of the configuration with the highest top-1 in the mean over its
    finished seeds; of equals the first. The widths are named `w4a4`, or `w4` where activations stay float.

    The run is the first of the configuration in `statuses`, not the one of its luckiest seed.
    """
    found: dict[tuple[int, int], dict[str, list[Status]]] = {}
    for now in statuses:
        if isinstance(now.stage, Recipe) and now.outcome:
            widths = now.stage.method.weight_bits, now.stage.method.act_bits
            found.setdefault(widths, {}).setdefault(configuration(now.stage), []).append(now)
    best = {}
    for (weight_bits, act_bits), seeds in sorted(found.items()):
        acts = "" if act_bits == FLOAT_BITS else f"a{act_bits}"
        best[f"w{weight_bits}{acts}"] = max(seeds.values(), key=lambda runs: fmean(map(_top1, runs)))[0]
    return best


def _top1(now: Status) -> float:
    top1 = (now.outcome or {}).get("top1")
    return float(top1) if isinstance(top1, int | float) else -1.0


def register(
    client: Any, sweep: str, best: Mapping[str, Status], runs: Mapping[str, MlflowRun], served: bool
) -> None:
    """Let the alias of each pair of widths name the version of its best run; `runs` are MLflow's, by stage key, and
    `served` is whether a server keeps them."""
    if not best:
        return
    listed = client.search_registered_models(f"name = '{sweep}'")
    model = listed[0] if listed else client.create_registered_model(sweep)
    versions = {str(v.version): v for v in client.search_model_versions(f"name = '{sweep}'")}
    for alias in model.aliases:
        if alias.startswith("best-w") and alias.removeprefix("best-") not in best:
            client.delete_registered_model_alias(sweep, alias)  # of a version that named them otherwise
    for widths, now in best.items():
        alias, run = f"best-{widths}", runs[now.stage.key]
        of_run = [number for number, version in versions.items() if _is_of(version, run, now, served)]
        if not of_run:
            of_run = [_create(client, sweep, now, run, served)]
        if str(model.aliases.get(alias)) not in of_run:
            client.set_registered_model_alias(sweep, alias, of_run[0])


def _is_of(version: Any, run: MlflowRun, now: Status, served: bool) -> bool:
    """Whether it is a version of the run. The database of somebody else's runs folder may have one whose files are
    elsewhere, which who loads it would run."""
    inside = served or folder_within(version.source or "", now.folder.resolve()) is not None
    return bool(version.run_id == run.run_id and inside)


def _create(client: Any, sweep: str, now: Status, run: MlflowRun, served: bool) -> str:
    made = client.create_model_version(
        sweep,
        # A server takes for a source no path but the run's folder among its artifacts, wherever it keeps them.
        run.artifact_uri if served else now.folder.as_uri(),
        run.run_id,
        tags={"stage_key": now.stage.key, "run_directory": str(now.folder)},
        description=f"{now.stage.name}: top-1 {_top1(now):.2f} %",
    )
    return str(made.version)
