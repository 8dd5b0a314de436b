"""The MLflow run that holds the sweep's table and plots.

By which client is the caller's; it is safe to repeat, and to be cut off anywhere.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from suite.track.experiment import NOTE
from suite.track.mlflow_run import MlflowRun, created, log, set_status
from suite.track.uploads import Uploads


def sync_report(
    client: Any, experiment: str, run: MlflowRun | None, sweep: str, folder: Path, uploads: Uploads
) -> MlflowRun:
    """The run with the files of `folder`, but for those that the artifact store refuses, which are tried again. A link
    is not followed: it may lead to what is nobody's business."""
    found = sorted(file for file in folder.iterdir() if file.is_file() and not file.is_symlink())
    files = {file.name: file.read_bytes() for file in found}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    if run and run.tags.get("report_sha256") == whole and run.status == "FINISHED":
        return run
    listed: set[str] = set()
    if run:
        uploads.check_place(run)
        with uploads.reported("report", "to list the report's files"):
            listed = {item.path for item in client.list_artifacts(run.run_id)}
    if run and listed - digests.keys():
        client.delete_run(run.run_id)  # MLflow cannot forget an artifact either
        run = None
    if run is None:
        tags = {"stage_key": f"report {sweep}", "role": "report", "mlflow.source.type": "JOB"}
        tags["mlflow.source.name"] = f"suite report {sweep}"
        run = created(client, experiment, f"report {sweep}", tags)
    refused = uploads.upload(run, files)
    page, flow = f"#/experiments/{experiment}/runs/{run.run_id}", "workflowType=machine_learning"
    links = [f"[{name}]({page}/artifacts/{quote(name)}?{flow})" for name in files if name not in refused]
    tags = {
        NOTE: " · ".join(links),
        "artifacts_left_out": "; ".join(f"{name}: {why}" for name, why in refused.items()),
        "report_sha256": "" if refused else whole,
    }
    log(client, run, tags)
    set_status(client, run, "FINISHED", int(time.time() * 1000))
    return run
