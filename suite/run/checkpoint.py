"""Checkpoints: torch.save, written whole or not at all, checked by their SHA-256."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from suite.recipe.errors import SuiteError
from suite.record.files import move, open_fresh, sha256

KEPT = 2
"""How many states to resume from stay: the newest, and the one before should that be torn."""
LEARNED = "learned"
"""The file of what a finished recipe learned without training, by the number of its step."""


def _write(state: dict[str, Any], fresh: Path) -> str:
    """torch.save, on disk when this returns; its SHA-256. A full disk raises OSError and keeps nothing."""
    import torch  # here, and not above: `status` reads JSON and does not wait for it

    try:
        with open_fresh(fresh) as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except Exception as error:
        fresh.unlink(missing_ok=True)
        if isinstance(error.__context__, OSError):  # torch raises an error of its own for a full disk
            raise error.__context__ from None
        raise
    return sha256(fresh)


def save(state: dict[str, Any], file: Path) -> dict[str, Any]:
    """torch.save, whole or not at all. Returns {"file", "sha256", "bytes"} for the record."""
    fresh = file.with_suffix(".writing")
    record = {"file": file.name, "sha256": _write(state, fresh), "bytes": fresh.stat().st_size}
    move(fresh, file)
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
    return _read(file)


def _read(file: Path) -> dict[str, Any]:
    """What a file of the right checksum holds. What torch says of one that holds more than tensors is left out: its
    advice is to switch off what keeps a file from running code."""
    import pickle

    import torch

    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise SuiteError(
            f"{file} holds something else than tensors, which no run of the suite writes; remove its run directory "
            f"and launch the sweep again"
        ) from None
    return state


def save_resumable(state: dict[str, Any], folder: Path, step: int) -> Path:
    """Keep `state`, reached after `step` steps, to resume from; its name holds its checksum. All but one older go."""
    file = keep(state, folder, f"resume-{step:010d}")
    for old in resumable(folder)[KEPT:]:
        old.unlink()
    return file


def resumable(folder: Path) -> list[Path]:
    """The states to resume from in a run directory, newest first, torn ones included."""
    return _kept(folder, r"resume-\d{10,}")[::-1]


def _kept(folder: Path, name: str) -> list[Path]:
    """The files in a run directory of a name, a pattern, and a checksum, in order; what somebody else put there is
    none."""
    whole = re.compile(name + r"-[0-9a-f]{16}\.pt")
    return sorted(file for file in folder.glob("*.pt") if whole.fullmatch(file.name) and file.is_file())


def load_resumable(
    folder: Path, fits: Callable[[dict[str, Any]], bool] | None = None
) -> tuple[dict[str, Any], Path] | None:
    """The newest state that is whole, tensors on the CPU, and its file; None where there is none. Those that `fits`
    says no of are removed."""
    while (found := _first_whole(resumable(folder))) and fits and not fits(found[0]):
        found[1].unlink()
    return found


def keep(state: dict[str, Any], folder: Path, name: str) -> Path:
    """A file of that name and its checksum, whole or not at all, also where several processes write it at once."""
    fresh = folder / f"{name}.{os.getpid()}.writing"
    file = folder / f"{name}-{_write(state, fresh)[:16]}.pt"
    move(fresh, file)
    return file


def load_kept(folder: Path, name: str) -> dict[str, Any] | None:
    """What `keep` left, tensors on the CPU, or None where there is nothing whole."""
    found = _first_whole(_kept(folder, re.escape(name)))
    return found[0] if found else None


def _first_whole(files: Iterable[Path]) -> tuple[dict[str, Any], Path] | None:
    for file in files:
        if sha256(file).startswith(file.stem.rpartition("-")[2]):
            return _read(file), file
    return None
