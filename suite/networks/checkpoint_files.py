"""Reads a checkpoint file into a network, and says what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.networks import build
from suite.recipe import Network
from suite.recipe.errors import SuiteError


def load_weights(network: Network, file: Path) -> nn.Module:
    """`network` with the weights of a checkpoint: a state_dict, or a dict that holds one as `state_dict` or
    `model`; a DataParallel prefix `module.` is taken off.

    Raises SuiteError where the file is no such checkpoint or belongs to another architecture.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise SuiteError(
            f"{file} is not a checkpoint that torch.load reads with weights_only: {reason}"
        ) from None
    state = _state_dict(content, file)
    model = build(network)
    expected = model.state_dict()
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = sorted(set(expected) - set(state) - counters)
    surplus = sorted(set(state) - set(expected))
    reshaped = sorted(n for n in set(expected) & set(state) if expected[n].shape != state[n].shape)
    if missing or surplus or reshaped:
        facts = [f"{len(missing)} tensors missing (first: {missing[0]})"] if missing else []
        facts += [f"{len(surplus)} unknown (first: {surplus[0]})"] if surplus else []
        facts += [
            f"{name} has shape {list(state[name].shape)}, not {list(expected[name].shape)}"
            for name in reshaped[:1]
        ]
        raise SuiteError(
            f"{file} is not a {network.name} with shortcut {network.shortcut} and {network.classes} classes: "
            f"{'; '.join(facts)}; name its architecture with --model, --shortcut and --classes"
        )
    model.load_state_dict(state, strict=False)
    return model


def _state_dict(content: Any, file: Path) -> Mapping[str, Tensor]:
    for name in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise SuiteError(
            f"{file} holds no state_dict: expected names and tensors, or those under 'state_dict'"
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
