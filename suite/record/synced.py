"""How far MLflow is with the runs of a sweep, as the last sync noted it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from suite.record.files import printable, read_object, write_json
from suite.record.status import Status

UP_TO_DATE = "up to date"
"""Of a run of which MLflow has all."""

Known = dict[str, tuple[Status, Status]]
"""By key: a status without and with how far MLflow is."""


def tracked(statuses: Sequence[Status], runs: Path, sweep: str, known: Known | None = None) -> list[Status]:
    """Each status with how far MLflow was with it at the last sync. Who asks again and again gives what is `known`,
    at first nothing: a status that has not changed is the same object as before."""
    synced, known = _last_sync(runs, sweep).get("positions"), {} if known is None else known
    if not isinstance(synced, dict):
        return list(statuses)
    for now in statuses:
        position = synced.get(now.stage.key, 0)
        behind = now.last.get("seq", 0) - (position if type(position) is int else 0)
        words = (f"{behind} events behind" if behind > 0 else UP_TO_DATE) if now.last else ""
        before = known.get(now.stage.key)
        if before is None or before[0] is not now or before[1].mlflow != words:
            known[now.stage.key] = now, replace(now, mlflow=words)
    return [known[now.stage.key][1] for now in statuses]


def note_synced(runs: Path, sweep: str, positions: dict[str, int], pages: dict[str, str]) -> None:
    """Record up to which event of each journal, by key, MLflow has it, and links to its pages by what they show."""
    _note(runs, sweep, positions=positions, pages=pages)


def note_syncer(runs: Path, sweep: str, name: str) -> None:
    """Record who syncs the sweep from now on."""
    _note(runs, sweep, syncer=name)


def last_syncer(runs: Path, sweep: str) -> str:
    """Who synced the sweep last; empty where nobody did."""
    return str(_last_sync(runs, sweep).get("syncer", ""))


def _note(runs: Path, sweep: str, **content: Any) -> None:
    _synced(runs, sweep).parent.mkdir(parents=True, exist_ok=True)
    write_json(_last_sync(runs, sweep) | content, _synced(runs, sweep))


def mlflow_pages(runs: Path, sweep: str) -> dict[str, str]:
    """The links that the last sync noted; none where it had no server."""
    pages = _last_sync(runs, sweep).get("pages")
    pages = pages if isinstance(pages, dict) else {}
    return {printable(what): printable(link) for what, link in pages.items() if isinstance(link, str)}


def _last_sync(runs: Path, sweep: str) -> dict[str, Any]:
    return read_object(_synced(runs, sweep))


def _synced(runs: Path, sweep: str) -> Path:
    return runs / "sweeps" / f"{sweep}.mlflow"
