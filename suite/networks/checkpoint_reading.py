"""Reads a checkpoint file without running code that it names, and says what a file is that is none."""

from __future__ import annotations

import argparse
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from suite.recipe.errors import SuiteError
from suite.recipe.words import counted


class Unread:
    """What stands in a checkpoint for an object that is neither a tensor nor plain data, such as the settings and
    callbacks that Lightning keeps beside the weights: nothing is read of it, and no code of its class runs."""

    kind = ""
    """The class that the file names."""

    def __new__(cls, *values: object) -> Any:
        return object.__new__(cls)

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read(file: Path) -> Any:
    """What a checkpoint file holds, an Unread in the place of each object that is neither a tensor nor plain data.

    Raises SuiteError where it is no such file, a part of a checkpoint in several files, or an object and nothing else.
    """
    _check_whole(file)
    if is_safetensors(file):
        try:
            return safetensors.torch.load_file(file)
        except (OSError, safetensors.SafetensorError) as error:
            why = _why(file, error)
            if why.startswith("it is damaged"):
                why = f"{error}; fetch it anew"
            raise SuiteError(f"{file} is no intact safetensors file: {why}") from None
    unread: dict[str, Any] = {}
    try:
        content = _loaded(file, unread)
    except Exception as error:
        why = without_code(file, next(iter(unread))) if unread else _why(file, error)
        raise SuiteError(
            f"{file} is not a checkpoint that torch.load reads with weights_only: {why}"
        ) from None
    if isinstance(content, Unread):
        why = without_code(file, content.kind)
        raise SuiteError(f"{file} is not a checkpoint that torch.load reads with weights_only: {why}")
    return content


def is_safetensors(file: Path) -> bool:
    """Whether a file is of safetensors, by its name or by its beginning: caches of the Hugging Face Hub name no kind.
    Such a file does not keep the order in which a network has its tensors."""
    return file.suffix == ".safetensors" or _head(file)[8:10] == b'{"'


def without_code(file: Path, kind: str, entry: str = "") -> str:
    """That a file, or its `entry`, holds an object of `kind`, and the two lines that save its weights."""
    if kind.startswith("numpy."):
        return (
            f"it holds arrays of NumPy; save them as tensors: torch.save({{k: torch.as_tensor(v) for k, v in "
            f'torch.load("{file}", weights_only=False).items()}}, another)'
        )
    whole = f'["{entry}"]' if entry else ""
    return (
        f"it holds an object of {kind}{f' under {entry!r}' if entry else ''}, perhaps the whole network, and to read "
        f"that runs its code. Where you trust it, save its weights alone with these two lines:\n"
        f'model = torch.load("{file}", map_location="cpu", weights_only=False){whole}\n'
        f'torch.save(model.state_dict(), "{file.with_name(file.stem + "-weights.pt")}")'
    )


def _head(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as stream:
        return stream.read(200)


def _check_whole(file: Path) -> None:
    """Raise SuiteError for the index of a checkpoint in several files, and for one of these: a stage is known by the
    SHA-256 of one file, which has to be that of all weights."""
    part = re.search(r"-\d{5}-of-(\d{5})\.(\w+)$", file.name)
    if not file.name.endswith(".index.json") and (part is None or part[1] == "00001"):
        return
    what = "is the index" if part is None else f"is one of {counted(int(part[1]), 'file')}"
    stem = file.name.removesuffix(".index.json") if part is None else f"{file.name[: part.start()]}.{part[2]}"
    kind = Path(stem).suffix
    parts, joined = file.with_name(f"{Path(stem).stem}-*{kind}"), file.with_name(stem)
    load, save = ("load_file(f)", f'save_file(state, "{joined}")')
    if kind != ".safetensors":
        load, save = 'torch.load(f, map_location="cpu")', f'torch.save(state, "{joined}")'
    module = (
        "from safetensors.torch import load_file, save_file" if kind == ".safetensors" else "import torch"
    )
    raise SuiteError(
        f"{file} {what} of a checkpoint in several; join them, and name {joined}:\n{module}; from glob import glob\n"
        f'state = {{k: v for f in glob("{parts}") for k, v in {load}.items()}}; {save}'
    )


def _loaded(file: Path, unread: dict[str, Any]) -> Any:
    """What torch reads of the file with weights_only; the class of an Unread for each class that is not torch's is
    added to `unread` by its name, until torch asks for no other."""
    scalar = np.float64(0).__reduce__()[0]  # what makes one of its bytes
    beside: list[Any] = [argparse.Namespace, np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8"))]
    beside += [scalar, (scalar, "numpy.core.multiarray.scalar")]  # as older versions of numpy call it
    while True:
        named: list[Any] = [(kind, name) for name, kind in unread.items()]
        try:
            with torch.serialization.safe_globals([*beside, *named]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            if not _one_more(str(error), unread):
                raise


def _one_more(message: str, unread: dict[str, Any]) -> bool:
    """Add to `unread` what torch has missed, by its message; whether that is new."""
    if found := re.search(r"GLOBAL ([\w.]+) was not an allowed global", message):
        name = found[1] if "." in found[1] else f"builtins.{found[1]}"
        fresh = name not in unread
        unread[name] = type(f"Unread{len(unread)}", (Unread,), {"kind": name})
        return fresh
    found = re.search(r"Can only (SETITEM|append|extend).* got <class '[\w.]*?\.?(Unread\d+)'>", message)
    for name, kind in unread.items():
        # A subclass of dict or list, which torch fills itself and only where it is a plain one.
        if found and kind.__name__ == found[2]:
            plain = dict if found[1] == "SETITEM" else list
            unread[name] = type(f"Filled{len(unread)}", (Unread,), {"kind": name, "__new__": _maker(plain)})
            return True
    return False


def _maker(plain: type) -> Any:
    return lambda cls, *values: plain()


def _why(file: Path, error: Exception) -> str:
    """What the file is instead, as far as its beginning tells, and what to do.

    What torch says is left out: its advice is to switch off what keeps a file from running code.
    """
    if not file.is_file():
        return "it is a folder, or none"
    head = _head(file)
    if not head:
        return "it is empty; fetch it anew"
    if found := re.search(r"GLOBAL ([\w.]+) whose module .* is blocked", str(error)):
        return f"to read it would run {found[1]}, which no weights need; do not use it"
    if "DTensor" in str(error):
        return "it holds parts of tensors (DTensor), of a sharded training; save the full state_dict instead"
    for begins, words in FORMATS.items():
        if head.startswith(begins):
            return words
    if head.lstrip().startswith(b"<"):
        return "it is a web page; fetch the file itself"
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return without_code(file, found[1])
    if head.startswith(b"PK"):
        return _in_archive(file)
    if head.isascii() and all(letter >= 32 or letter in b"\t\r\n" for letter in head):
        return f"it is text, {head[:40].decode()!r}; fetch the file itself"
    return "it is damaged, or neither of torch.save nor .safetensors; fetch it anew"


FORMATS = {
    b"version https://git-lfs": "it is Git LFS's pointer to the file; run git lfs pull",
    b"\x1f\x8b": "it is compressed by gzip; unpack it first",
    b"\x89HDF": "it is HDF5, as Keras writes; copy its weights into the network in PyTorch, and save its state_dict",
    b"GGUF": "it is GGUF, of llama.cpp; fetch the checkpoint of torch.save or .safetensors",
    b"7z\xbc\xaf": "it is a 7z archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd; unpack it first",
}
"""What a file is that begins so, and what to do."""


def _in_archive(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # of damaged names and offsets zipfile raises many kinds
        names = []
    inside = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inside:
        return (
            f"it is TorchScript, of torch.jit.save; save its weights alone with this line:\n"
            f'torch.save(torch.jit.load("{file}", map_location="cpu").state_dict(), '
            f'"{file.with_name(file.stem + "-weights.pt")}")'
        )
    if not names or "data.pkl" in inside:
        return "it is a zip archive that is cut off or damaged, or not of torch.save; fetch it anew"
    return f"it is a zip archive of {', '.join(names[:3])}; unpack it, and name the checkpoint in it"
