"""The experiment of a sweep: whose it is, its plan, its view and its description.

By which client is the caller's; all is safe to repeat, and to be cut off anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.track import store
from suite.track.artifact_folders import check_inside
from suite.track.mlflow_run import MlflowRun
from suite.track.moved import ARTIFACTS
from suite.track.result import configuration
from suite.track.tags import plan_tags
from suite.track.ui_view import BEST_KEY, best_view, pages, views

NOTE = "mlflow.note.content"
"""The tag of a description, in Markdown."""
VIEW = "mlflow.sharedViewState"
"""What the names of the tags begin with that hold saved views."""


def open_experiment(
    client: Any, sweep: str, runs: Path, owner: str, lines: dict[str, str], stages: Sequence[Stage]
) -> str:
    """The id of the experiment, made where it is not there. Raises SuiteError for one that was deleted, for one of
    another runs folder than that of the id `owner`, and where the database in the runs folder has its artifacts
    elsewhere. A plan that cannot be kept is left out, with one of `lines`. Its views know the configurations of
    `stages`."""
    found = client.get_experiment_by_name(sweep)
    if found is None:
        folder = (runs.resolve() / ARTIFACTS / sweep).as_uri() if store.is_embedded(runs) else None
        found = client.get_experiment(client.create_experiment(sweep, artifact_location=folder))
    if found.lifecycle_stage == "deleted":
        raise SuiteError(
            f"experiment {sweep!r} was deleted in MLflow; restore it with `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`, or launch with another --name"
        )
    if found.tags.get("runs_folder", owner) != owner:
        raise SuiteError(
            f"experiment {sweep!r} at {store.shown(runs)} belongs to another runs folder; launch with another --name"
        )
    if store.is_embedded(runs):
        check_inside(found.artifact_location, runs, f"experiment {sweep}")
    saved = views(found.creation_time, map(configuration, stages))
    tags = {"runs_folder": owner}
    tags |= {f"{VIEW}.{key}": value for key, value in saved.items()}
    try:
        tags |= plan_tags(runs / "sweeps" / f"{sweep}.json", found.tags)
    except SuiteError as error:
        lines["plan"] = f"MLflow has not the plan of {sweep}: {error}"
    for name, value in tags.items():
        if found.tags.get(name) != value:
            client.set_experiment_tag(found.experiment_id, name, value)
    return str(found.experiment_id)


def show_best(client: Any, experiment: str, run_ids: Sequence[str]) -> None:
    """Let the view of the best show these runs."""
    if run_ids:
        created = client.get_experiment(experiment).creation_time
        client.set_experiment_tag(experiment, f"{VIEW}.{BEST_KEY}", best_view(created, run_ids))


def description(experiment: str, sweep: str, about: str, report: MlflowRun | None) -> str:
    """What the sweep asks, of which MLflow shows the first line above each of its pages; with links to the runs, since
    MLflow opens an experiment on a page for other work, and to the `report`."""
    first, _, rest = about.strip().partition("\n")
    runs = pages("", experiment)["table"].removeprefix("/")
    text = f"Sweep `{sweep}`: [its runs]({runs}). {first or 'One run a stage.'}"
    if report:
        link = f"#/experiments/{experiment}/runs/{report.run_id}?workflowType=machine_learning"
        text += f" Its table and plots: [report {sweep}]({link})"
    return f"{text}\n{rest}" if rest else text


def describe(client: Any, experiment: str, sweep: str, text: str) -> None:
    """Set the description, unless a text of the user's own stands there."""
    there = client.get_experiment(experiment).tags.get(NOTE, "")
    if there != text and (not there or there.startswith(f"Sweep `{sweep}`:")):
        client.set_experiment_tag(experiment, NOTE, text)
