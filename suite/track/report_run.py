"""The experiment's description, and the MLflow run that holds the sweep's table and plots.

By which client is the caller's; both are safe to repeat, and to be cut off anywhere.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote


def describe(client: Any, experiment: str, sweep: str, description: str, reported: Any) -> None:
    """What the sweep asks, above its table, of which MLflow shows the first line; a text of the user's own stays."""
    first, _, rest = description.strip().partition("\n")
    note = f"Sweep `{sweep}`: {first or 'one run a stage.'}"
    if reported:
        link = f"#/experiments/{experiment}/runs/{reported.info.run_id}?workflowType=machine_learning"
        note += f" Its table and plots: [report {sweep}]({link})"
    note += f"\n{rest}" if rest else ""
    there = client.get_experiment(experiment).tags.get("mlflow.note.content", "")
    if there != note and (not there or there.startswith(f"Sweep `{sweep}`:")):
        client.set_experiment_tag(experiment, "mlflow.note.content", note)


def sync_report(client: Any, experiment: str, run: Any, sweep: str, folder: Path, refusals: Any) -> Any:
    """The run with the files of `folder`, but for those that the artifact store refuses, which are tried again. A link
    is not followed: it may lead to what is nobody's business."""
    found = sorted(file for file in folder.iterdir() if file.is_file() and not file.is_symlink())
    files = {file.name: file.read_bytes() for file in found}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    if run and run.data.tags.get("report_sha256") == whole and run.info.status == "FINISHED":
        return run
    listed: set[str] = set()
    if run:
        with refusals.told("report", "to list the report's files"):
            listed = {item.path for item in client.list_artifacts(run.info.run_id)}
    if run and listed - digests.keys():
        client.delete_run(run.info.run_id)  # MLflow cannot forget an artifact either
        run = None
    if run is None:
        tags = {"stage_key": f"report {sweep}", "role": "report", "mlflow.source.type": "JOB"}
        tags["mlflow.source.name"] = f"suite report {sweep}"
        run = client.create_run(experiment, tags=tags, run_name=f"report {sweep}")
    refused = refusals.upload(run, files)
    page = f"#/experiments/{experiment}/runs/{run.info.run_id}"
    flow = "workflowType=machine_learning"
    there = [name for name in files if name not in refused]
    links = [f"[{name}]({page}/artifacts/{quote(name)}?{flow})" for name in there]
    tags = {
        "mlflow.note.content": " · ".join(links),
        "artifacts_left_out": "; ".join(f"{name}: {why}" for name, why in refused.items()),
        "report_sha256": "" if refused else whole,
    }
    for name, value in tags.items():
        if run.data.tags.get(name, "") != value:
            client.set_tag(run.info.run_id, name, value)
    client.set_terminated(run.info.run_id, "FINISHED")
    return run
