"""Reads a checkpoint file into a network, as people save them, and says what does not fit.

What has to be understood of a file that is no plain state_dict of this network is printed: nothing is guessed in
silence.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from suite.networks import build
from suite.recipe import Network
from suite.recipe.errors import SuiteError

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "weights",
    "ema_state_dict",
    "state_dict_ema",
    "ema",
)
"""Under which of its entries a checkpoint holds the weights, in order of preference."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Of names: of DataParallel and DistributedDataParallel, of torch.compile, of Lightning and others."""

SURPLUS = re.compile(r"(^|\.)(total_ops|total_params|n_averaged)$")
"""Entries that profilers (thop) and averaging (SWA) leave beside the weights."""

State = dict[str, Tensor]


def load_weights(network: Network, file: Path) -> nn.Module:
    """`network` with the weights of a checkpoint of torch.save (also under one of WRAPPERS, with PREFIXES before the
    names, in half precision, without counters) or of safetensors.

    Where names differ, but kind, shape and order of all tensors agree, those in the same place are taken for each
    other, and the pairs are printed. Raises SuiteError where the file is no such checkpoint, belongs to another
    architecture, or holds inf or NaN.
    """
    model, notes = fitted(network, read(file), file)
    for note in notes:
        print(f"{file.name}: {note}", flush=True)
    return model


def fitted(network: Network, content: Any, file: Path) -> tuple[nn.Module, list[str]]:
    """`network` with the weights among the `content` of `file`, and what had to be understood. Raises SuiteError."""
    model = build(network)
    expected = _without_counters(model.state_dict())
    notes: list[str] = []
    state = _without_prefixes(weights_of(content, file, notes), expected, notes)
    for understood in (_by_other_names, _by_place):
        if expected.keys() != _without_counters(state).keys():
            state = understood(state, expected, notes)
    _check_fits(state, expected, network, file)
    for name, value in state.items():
        if value.is_meta:
            raise SuiteError(f"{file}: {name} has no values; it was saved of a network on the device meta")
        if name in expected and value.is_floating_point() != expected[name].is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise SuiteError(f"{file}: {name} is {kind}, not float; save the weights as float32")
        if not value.isfinite().all():
            raise SuiteError(f"{file}: {name} holds inf or NaN; it was saved of a training that diverged")
    model.load_state_dict(state, strict=False)
    return model, notes


def read(file: Path) -> Any:
    """What a checkpoint file holds. Raises SuiteError where it is none."""
    if file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except (OSError, safetensors.SafetensorError) as error:
            why = _why(file, error)
            if why.startswith("it is damaged"):
                why = f"{error}; fetch it anew"
            raise SuiteError(f"{file} is no intact safetensors file: {why}") from None
    scalar = np.float64(0).__reduce__()[0]  # what makes one of its bytes
    beside: list[Any] = [argparse.Namespace, np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8"))]
    beside += [scalar, (scalar, "numpy.core.multiarray.scalar")]  # as older versions of numpy call it
    try:
        with torch.serialization.safe_globals(beside):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SuiteError(
            f"{file} is not a checkpoint that torch.load reads with weights_only: {_why(file, error)}"
        ) from None


def _why(file: Path, error: Exception) -> str:
    """What the file is instead, as far as its beginning tells, and what to do.

    What torch says is left out: its advice is to switch off what keeps a file from running code.
    """
    if not file.is_file():
        return "it is a folder, or none"
    with file.open("rb") as stream:
        head = stream.read(200)
    if not head:
        return "it is empty; fetch it anew"
    if head.startswith(b"version https://git-lfs"):
        return "it is Git LFS's pointer to the file; run git lfs pull"
    if head.lstrip().startswith(b"<"):
        return "it is a web page; fetch the file itself"
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"it holds an object of {found[1]}, perhaps the whole network, and to read that runs its code. Where you "
            f"trust it, save its weights alone with these two lines:\n"
            f'model = torch.load("{file}", map_location="cpu", weights_only=False)\n'
            f'torch.save(model.state_dict(), "{file.with_name(file.stem + "-weights.pt")}")'
        )
    if head.startswith(b"\x1f\x8b"):
        return "it is compressed by gzip; unpack it first"
    if head.startswith(b"PK"):
        return "it is a zip archive that is cut off or damaged, or not of torch.save; fetch it anew"
    if head.isascii() and all(letter >= 32 or letter in b"\t\r\n" for letter in head):
        return f"it is text, {head[:40].decode()!r}; fetch the file itself"
    return "it is damaged, or neither of torch.save nor .safetensors; fetch it anew"


def weights_of(content: Any, file: Path, notes: list[str]) -> State:
    """The weights among the `content` of `file`; adds to `notes` what was left out."""
    while isinstance(content, Mapping):
        inside = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inside:
            break
        if len(inside) > 1:
            notes.append(f"of {', '.join(inside)} the weights of {inside[0]} are taken")
        content = content[inside[0]]
    tensors = (
        {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not any(value.dim() for value in tensors.values()):
        raise SuiteError(
            f"{file} holds no state_dict: expected names and tensors, or those under one of {', '.join(WRAPPERS)}"
        )
    if others := [str(name) for name in content if str(name) not in tensors]:
        notes.append(f"{', '.join(others[:5])} beside the weights are left out")
    return {name: value for name, value in tensors.items() if not SURPLUS.search(name)}


def _without_counters(state: State) -> State:
    """Without the batches that BatchNorm has seen, which many files lack and nothing here needs."""
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def _without_prefixes(state: State, expected: State, notes: list[str]) -> State:
    """Names without what comes before all of them and before none of the network's own."""
    taken = ""
    while not state.keys() & expected.keys():
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state, taken = {name.removeprefix(prefix): value for name, value in state.items()}, taken + prefix
    if taken not in ("", "module."):
        notes.append(f"{taken} before all names is left out")
    return state if state.keys() & expected.keys() else _under_prefix(state, expected, notes)


def _under_prefix(state: State, expected: State, notes: list[str]) -> State:
    """What lies under the one prefix that comes before all of the network's own names, beside something else."""
    first = next(iter(expected))
    found = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    whole = [prefix for prefix in found if all(prefix + name in state for name in expected)]
    if len(whole) > 1 and any(
        prefix in PREFIXES for prefix in whole
    ):  # a mean of the weights may lie beside them
        whole = [prefix for prefix in whole if prefix in PREFIXES]
    if len(whole) != 1:
        return state
    prefix = whole[0]
    others = [name for name in state if not name.startswith(prefix)]
    notes.append(f"{prefix} before the names is left out" + (f", and {_listed(others)}" if others else ""))
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _by_other_names(state: State, expected: State, notes: list[str]) -> State:
    """The tensors of a ResNet that names its shortcuts and its last layer as torchvision does, under the network's
    names; as they are where these do not fit."""
    renamed = {
        re.sub(r"\bdownsample\b", "shortcut", re.sub(r"^fc\b", "linear", name)): value
        for name, value in state.items()
    }
    if _without_counters(renamed).keys() != expected.keys():
        return state
    notes.append("downsample is taken for shortcut, and fc for linear")
    return renamed


def _by_place(state: State, expected: State, notes: list[str]) -> State:
    """The tensors under the network's names, where those of both are alike one by one, by kind and by shape."""
    weights = _without_counters(state)
    if [_kind(*item) for item in weights.items()] != [_kind(*item) for item in expected.items()]:
        return state
    pairs = dict(zip(weights, expected, strict=True))
    renamed = [f"{theirs} is taken for {ours}" for theirs, ours in pairs.items() if theirs != ours]
    shown = "; ".join(renamed[:6]) + (f"; and {len(renamed) - 6} more" if len(renamed) > 6 else "")
    notes.append(f"{len(renamed)} of {len(pairs)} names differ, shapes and order agree: {shown}")
    return {ours: state[theirs] for theirs, ours in pairs.items()}


def _kind(name: str, value: Tensor) -> tuple[str, tuple[int, ...]]:
    return name.rpartition(".")[2], tuple(value.shape)


def _check_fits(state: State, expected: State, network: Network, file: Path) -> None:
    missing = sorted(set(expected) - set(state))
    surplus = sorted(set(_without_counters(state)) - set(expected))
    reshaped = sorted(n for n in set(expected) & set(state) if expected[n].shape != state[n].shape)
    if not (missing or surplus or reshaped):
        return
    facts = [f"{len(missing)} tensors missing (first: {missing[0]})"] if missing else []
    facts += [f"{len(surplus)} unknown (first: {surplus[0]})"] if surplus else []
    facts += [
        f"{name} has shape {list(state[name].shape)}, not {list(expected[name].shape)}"
        for name in reshaped[:1]
    ]
    raise SuiteError(
        f"{file} is not a {network.name} with shortcut {network.shortcut} and {network.classes or 10} classes: "
        f"{'; '.join(facts)}; name its architecture with --model, --shortcut and --classes"
    )
