"""Tags that hold what points and parameters do not, so that a table made from MLflow is that made from the journals.

The plan, with what has not begun, is in tags of the experiment; what a run left beside its journal, in one of the run.
`analysis/read/mlflow.py` reads both.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.recipe.errors import SuiteError
from suite.record.files import read_object
from suite.record.journal import images_read, run_seconds
from suite.record.status import Status

PLAN, RECORD, SYNCED = "mlflow.suite.plan", "mlflow.suite.record", "mlflow.suite.synced"
"""Tags that only the machine reads: MLflow's pages do not list tags that begin with `mlflow.`. PLAN begins the
names of those that hold the plan."""
OLDER = {RECORD: "record", SYNCED: "synced"}
"""What a version before 3 of `sync_run` called them, in the face of the reader."""
PART = 15_000
"""Characters in one of them; MLflow takes 20,000."""
FIELDS = ("key", "name", "kind", "params", "needs")
ORIGIN = ("format", "commit", "dirty", "device", "host", "versions")
OUTCOME = ("key", "top1", "top5", "loss", "images", "images_per_s", "model_size_mb", "seconds", "start_top1")


def plan_tags(file: Path, there: Mapping[str, str]) -> dict[str, str]:
    """The tags that an experiment with the tags `there` needs to hold the sweep's record `file`; none if it has them.

    The first begins with their number and the file's digest, and is written last: what is cut off is written anew.
    Raises SuiteError for a file that is no record of a sweep.
    """
    if not file.exists():
        return {}
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    if there.get(f"{PLAN}.0", "").split(" ")[1:2] == [digest]:
        return {}
    try:
        read = json.loads(content)
        rows = [{name: row[name] for name in FIELDS} for row in read["stages"]]
        plan = {"format": read["format"], "stages": rows}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SuiteError(f"{file} lacks what a table needs of its stages; launch the sweep again") from None
    packed = base64.b64encode(zlib.compress(json.dumps(plan).encode(), 9)).decode()
    parts = [packed[begin : begin + PART] for begin in range(0, len(packed), PART)]
    parts[0] = f"{len(parts)} {digest} {parts[0]}"
    return {f"{PLAN}.{number}": parts[number] for number in reversed(range(len(parts)))}


def record(now: Status) -> str:
    """What a run left beside its journal, and what the analysis sums up of that, as JSON for its tag RECORD."""
    content = {
        "stage": _chosen(read_object(now.folder / "stage.json") or None, ORIGIN),
        "outcome": _chosen(now.outcome, OUTCOME),
        "data": images_read(now.journal),
        "run_seconds": run_seconds(now.journal),
    }
    return json.dumps(content)


def _chosen(content: Any, names: Sequence[str]) -> dict[str, Any] | None:
    return {name: content.get(name) for name in names} if isinstance(content, dict) else None
