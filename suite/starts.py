"""Where a recipe starts: the weights that a finished float network left, prepared, and what its layers see."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from suite import batch_norm, checkpoint, events, models
from suite.observation import Observation, observe
from suite.recipe import FLOAT_BITS, Calibration, Pretrained, Recipe, Training
from suite.settings import Folders
from suite.surgery import LAYERS, set_edges
from suite.values import SuiteError


def network_of(stage: Recipe, folders: Folders) -> nn.Module:
    """The float network that is quantized, on the CPU: trained, or as it was when its training began."""
    if getattr(stage.method, "from_scratch", False):
        torch.manual_seed(stage.seed)
        return models.build(stage.start.network)
    return load_float(stage.start, folders)


def prepared(stage: Recipe, network: nn.Module) -> nn.Module:
    """What the recipe's method makes of the float `network`, with BatchNorm and the edge layers treated as it says."""
    if stage.batch_norm == "folded":
        network = batch_norm.fold(network)
    if stage.batch_norm == "frozen":
        network = batch_norm.freeze(network)
    model: nn.Module = stage.method.prepare(network)
    if stage.edge_bits:
        model = set_edges(model, None if stage.edge_bits == FLOAT_BITS else stage.edge_bits)
    return model


def observed(
    network: nn.Module, batches: Iterable[Tensor], calibration: Calibration, digest: str, folder: Path
) -> tuple[Observation, bool]:
    """What the layers of the float `network` see on the images that `calibration` draws; whether it was there before.

    It is observed once for all that start from the network, in whose run directory `folder` it stays under a name that
    tells what it was made from; `digest` is the data's. The size of the `batches` does not matter to it. It is on the
    CPU, so that the ranges are the same for all.
    """
    whole = hashlib.sha256(digest.encode())
    for tensor in network.state_dict().values():
        whole.update(tensor.detach().cpu().numpy().tobytes())
    name = f"observed-{calibration.images}-seed{calibration.seed}-{whole.hexdigest()[:16]}"
    state = checkpoint.load_kept(folder, name)
    if shared := state is not None:
        return Observation.from_state(state), shared
    seen = observe(network, batches, LAYERS)
    seen = replace(seen, counts=seen.counts.cpu(), low=seen.low.cpu(), high=seen.high.cpu())
    checkpoint.keep(seen.state(), folder, name)
    return seen, shared


def load_float(start: Training | Pretrained, folders: Folders) -> nn.Module:
    """The float network that `start` left, on the CPU. Raises SuiteError where its file is missing or changed."""
    if isinstance(start, Pretrained):
        file = Path(start.file)
        if not file.is_file() or checkpoint.sha256(file) != start.sha256:
            raise SuiteError(
                f"{file} is not the checkpoint of sha256 {start.sha256[:16]} that was planned; launch the sweep again"
            )
        return models.load_weights(start.network, file)
    folder = folders.runs / start.key
    record = events.outcome(folder)
    if record is None:
        raise SuiteError(f"{start.name} ({start.key}) is not done yet; run it first")
    saved = record["checkpoint"]
    state = checkpoint.load(folder / Path(saved["file"]).name, saved["sha256"])
    model = models.build(start.network)
    model.load_state_dict(state["model"])
    return model
