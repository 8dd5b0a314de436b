"""Files that are whole or absent: written elsewhere, synced, checksummed, then moved into place."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from suite.values import SuiteError


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save(state: dict[str, Any], file: Path) -> dict[str, Any]:
    """torch.save, whole or not at all. Returns {"file", "sha256", "bytes"} for the record."""
    fresh = file.with_suffix(".writing")
    with fresh.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    record = {"file": file.name, "sha256": sha256(fresh), "bytes": fresh.stat().st_size}
    fresh.replace(file)
    return record


def load(file: Path, expected_sha256: str) -> dict[str, Any]:
    """The state in `file`, tensors on the CPU, never executing code. Raises SuiteError if it is missing or torn."""
    if not file.is_file():
        raise SuiteError(f"checkpoint {file} is missing; remove its run directory and launch the sweep again")
    found = sha256(file)
    if found != expected_sha256:
        raise SuiteError(
            f"checkpoint {file} has sha256 {found[:16]}, not {expected_sha256[:16]} as recorded; it was changed or "
            f"damaged: put the original back, or remove its run directory and launch again"
        )
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def write_json(content: Any, file: Path) -> None:
    """JSON, whole or not at all, and on disk when this returns."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.writing")
    with fresh.open("w") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
