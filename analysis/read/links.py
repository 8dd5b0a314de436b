"""Where MLflow shows each run: asked of the server, left out where there is none to ask."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import Request, urlopen

from suite.record.secrets import without_login

SECONDS = 5.0
"""How long one answer of the server is waited for."""


def pages(runs: Path, sweep: str) -> dict[str, str]:
    """The page of each stage's run by key, where the sweep was synced (`RUNS/sweeps/SWEEP.mlflow` is there) and
    MLFLOW_TRACKING_URI is a server that answers; empty otherwise: a report is written without MLflow, too."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not server.startswith(("http://", "https://")) or not (runs / "sweeps" / f"{sweep}.mlflow").exists():
        return {}
    try:
        found = _ask(server, f"experiments/get-by-name?{urlencode({'experiment_name': sweep})}")
        return _runs(server, str(found["experiment"]["experiment_id"]))
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _runs(server: str, experiment: str) -> dict[str, str]:
    found: dict[str, str] = {}
    token: str | None = ""
    while token is not None:
        wanted = {"experiment_ids": [experiment], "max_results": 1000} | (
            {"page_token": token} if token else {}
        )
        answer = _ask(server, "runs/search", wanted)
        for run in answer.get("runs", ()):
            tags = {tag["key"]: tag.get("value") for tag in run["data"].get("tags", ())}
            if "stage_key" in tags:
                page = (
                    f"#/experiments/{quote(experiment, safe='')}/runs/{quote(run['info']['run_id'], safe='')}"
                )
                found[str(tags["stage_key"])] = f"{without_login(server)}/{page}"
        token = answer.get("next_page_token") or None
    return found


def _ask(server: str, what: str, content: Mapping[str, Any] | None = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    address = f"{without_login(server)}/api/2.0/mlflow/{what}"
    request = Request(address, body, {"Content-Type": "application/json"})
    if account := _account(server):
        # Not sent on where the server redirects.
        request.add_unredirected_header("Authorization", f"Basic {b64encode(account.encode()).decode()}")
    with urlopen(request, timeout=SECONDS) as answer:
        return json.loads(answer.read())


def _account(server: str) -> str:
    """`user:password` of MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, as MLflow's client takes them, else of
    the address; empty without one."""
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    return f"{user}:{password}" if user and password else unquote(urlsplit(server).netloc.rpartition("@")[0])
