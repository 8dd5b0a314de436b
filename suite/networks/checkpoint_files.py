"""Reads a checkpoint file into a network, as people save them, and says what does not fit.

What has to be understood of a file that is no plain state_dict of this network is printed: nothing is guessed in
silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.networks import build, outputs
from suite.networks.checkpoint_reading import Unread, is_safetensors, read, without_code
from suite.recipe import Network
from suite.recipe.errors import SuiteError
from suite.recipe.settings import NETWORKS
from suite.recipe.words import counted

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
"""Under which of its entries a checkpoint holds the weights, in order of preference. Without one, they are those of
another entry, where there is one alone."""

TRAINING = re.compile("optim|sched|scaler|loop|callback", re.IGNORECASE)
"""Entries that hold the state of a training, also tensors, and no weights."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Of names: of DataParallel and DistributedDataParallel, of torch.compile, of Lightning and others."""

WITHIN = re.compile(r"(^|\.)(?:(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
"""What the same wrappers leave within names, where a part of a network was wrapped."""

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
    model, notes = build(network), list[str]()
    expected = _without_counters(model.state_dict())
    state = understood(model, network, content, file, notes)
    for name, value in state.items():
        if value.is_meta:
            raise SuiteError(f"{file}: {name} has no values; it was saved of a network on the device meta")
        if name in expected and value.is_floating_point() != expected[name].is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise SuiteError(f"{file}: {name} is {kind}, not float; save the weights as float32")
        if value.is_floating_point() and not value.float().isfinite().all():
            raise SuiteError(f"{file}: {name} holds inf or NaN; it was saved of a training that diverged")
    model.load_state_dict(state, strict=False)
    return model, notes


def understood(model: nn.Module, network: Network, content: Any, file: Path, notes: list[str]) -> State:
    """The weights among the `content` of `file` under the names of `model`, of which only names and shapes matter;
    what had to be understood is added to `notes`. Raises SuiteError where they are not those of `network`."""
    expected = _without_counters(model.state_dict())
    state = _without_prefixes(weights_of(content, file, notes), expected, notes)
    for renamed in (_by_other_names, _by_place):
        if renamed is _by_place and is_safetensors(file):
            break  # its tensors are in another order than the network's
        if expected.keys() != _without_counters(state).keys():
            state = renamed(state, expected, notes)
    _check_fits(state, expected, network, file)
    return state


def weights_of(content: Any, file: Path, notes: list[str]) -> State:
    """The weights among the `content` of `file`; adds to `notes` what was left out. Raises SuiteError where there are
    none, or several, and for a tensor that nothing can be computed with."""
    seen = set[int]()
    while isinstance(content, Mapping) and id(content) not in seen:  # a pickle may hold itself
        seen.add(id(content))
        inside = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inside and not _holds_weights(content):
            inside = _other_entries(content, file, notes)
        if not inside:
            break
        if len(inside) > 1:
            notes.append(f"of {', '.join(inside)} the weights of {inside[0]} are taken")
        content = content[inside[0]]
    if not isinstance(content, Mapping) or not _holds_weights(content):
        raise _no_weights(content, file)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        _check_plain(name, value, file)
    if others := [str(name) for name in content if str(name) not in tensors]:
        notes.append(f"{', '.join(others[:5])} beside the weights are left out")
    return {name: value for name, value in tensors.items() if not SURPLUS.search(name)}


def _holds_weights(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) and value.dim() for value in content.values())


def _other_entries(content: Mapping[Any, Any], file: Path, notes: list[str]) -> list[str]:
    """The one entry of another name than those of WRAPPERS that holds names and tensors; none where there is none.

    Raises SuiteError where there are several: which is meant, only the user knows.
    """
    found = [
        name
        for name, value in content.items()
        if isinstance(value, Mapping) and _holds_weights(value) and not TRAINING.search(str(name))
    ]
    if len(found) > 1:
        raise SuiteError(
            f"{file} holds weights under {', '.join(map(repr, found))}; save those that are meant in a file of their "
            f"own: torch.save(torch.load(file, weights_only=False)[{found[0]!r}], another)"
        )
    notes += [f"the weights under {name!r} are taken" for name in found]
    return found


def _no_weights(content: Any, file: Path) -> SuiteError:
    if not isinstance(content, Mapping):
        got = f"a {type(content).__name__}"
    else:
        kinds = {str(name): type(value).__name__ for name, value in content.items()}
        got = ", ".join(f"{name} ({kind})" for name, kind in list(kinds.items())[:8]) or "nothing"
        for name, value in content.items():
            if isinstance(value, Unread):
                return SuiteError(f"{file} holds no state_dict: {without_code(file, value.kind, str(name))}")
    return SuiteError(
        f"{file} holds no state_dict: expected names and tensors, or those under one of {', '.join(WRAPPERS)}; it "
        f"holds {got}"
    )


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


LARGEST_REPEATED = 2**30
"""Bytes of a tensor that says to hold more than the file has: a value may be repeated, but not to fill the memory."""


def _check_plain(name: str, value: Tensor, file: Path) -> None:
    """Raise SuiteError for a tensor that nothing can be computed with, or for which the file lacks the values."""
    if value.layout is not torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise SuiteError(f"{file}: {name} is {kind}; save the weights dense, with .to_dense()")
    if value.dtype == torch.float4_e2m1fn_x2:
        raise SuiteError(f"{file}: {name} is float4, two values a byte; save the weights as float32")
    size = value.numel() * value.element_size()
    stored = 0 if value.is_meta else value.untyped_storage().nbytes()
    if size > max(stored, LARGEST_REPEATED):
        raise SuiteError(
            f"{file}: {name} is of shape {list(value.shape)}, {size:,} bytes, of which the file has {stored:,}; it is "
            f"damaged, or made to fill the memory"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _by_other_names(state: State, expected: State, notes: list[str]) -> State:
    """The tensors of a network that is named otherwise as OTHER_NAMES have it, under the network's names; as they are
    where these do not fit."""
    for words, rename in OTHER_NAMES:
        renamed = {rename(name): value for name, value in state.items()}
        if len(renamed) == len(state) and _without_counters(renamed).keys() == expected.keys():
            notes.append(words)
            return renamed
    return state


def _without_wrappers(name: str) -> str:
    return WITHIN.sub(r"\1", name)


def _as_ours(name: str) -> str:
    return re.sub(r"\bdownsample\b", "shortcut", re.sub(r"^fc\b", "linear", name))


OTHER_NAMES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("downsample is taken for shortcut, and fc for linear", _as_ours),
    ("module and _orig_mod within names are left out", _without_wrappers),
    (
        "module and _orig_mod within names are left out; downsample is taken for shortcut, and fc for linear",
        lambda name: _as_ours(_without_wrappers(name)),
    ),
)
"""What is understood of names, and the network's name for one of a file: of a ResNet that names its shortcuts and its
last layer as torchvision does, and of networks that were wrapped in part."""


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
    facts = [f"{counted(len(missing), 'tensor')} missing (first: {missing[0]})"] if missing else []
    facts += [f"{len(surplus)} unknown (first: {surplus[0]})"] if surplus else []
    facts += [
        f"{name} has shape {list(state[name].shape)}, not {list(expected[name].shape)}"
        for name in reshaped[:1]
    ]
    if network.name in NETWORKS:
        kind = f"{network.name} with shortcut {network.shortcut} and {counted(outputs(network), 'class')}"
        remedy = "name its architecture with --model, --shortcut and --classes"
    else:
        kind = f"{network.name} with {counted(outputs(network), 'class')}"
        remedy = "name the network that it was saved of, or another file"
    raise SuiteError(f"{file} is not a {kind}: {'; '.join(facts)}; {remedy}")
