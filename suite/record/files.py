"""Files that are whole or absent: written under another name, synced, then moved into place."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Folders:
    """Where runs are written and where data sets lie."""

    runs: Path
    data: Path


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(content: Any, file: Path) -> None:
    """JSON, whole or not at all, and on disk when this returns."""
    write_bytes(json.dumps(content, indent=1).encode(), file)


def write_bytes(content: bytes, file: Path, sync: bool = True) -> None:
    """Whole or not at all, and on disk when this returns unless `sync` is off. A full disk raises OSError and keeps
    nothing."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.writing")
    try:
        with fresh.open("wb") as stream:
            stream.write(content)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
