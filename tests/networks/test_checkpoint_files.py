"""Checkpoints as people save them load to the same weights, what was understood of them is printed, and the rest is
refused with what to do."""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from fakes.networks import lived_in, under
from torch import Tensor

from suite.networks.checkpoint_files import load_weights
from suite.recipe import Network
from suite.recipe.errors import SuiteError

State = dict[str, Tensor]


def chenyaofo(state: State) -> State:
    """torchvision's names, as chenyaofo's and huyvnphan's files have them. (kuangliu's are ours.)"""
    return {
        name.replace("linear.", "fc.").replace("shortcut.", "downsample."): value
        for name, value in state.items()
    }


def weiaicunzai(state: State) -> State:
    """A block is a Sequential named residual_function, without names of its own for its parts."""
    parts = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4"}
    renamed = {}
    for name, value in state.items():
        words = name.split(".")
        if words[0].startswith("layer") and words[2] in parts:
            words[2:3] = ["residual_function", parts[words[2]]]
        renamed[".".join(words)] = value
    return renamed


def apot(state: State) -> State:
    """Torchvision's names, and a block's shortcut before its convolutions."""
    return dict(sorted(chenyaofo(state).items(), key=lambda item: "downsample" not in item[0]))


class Settings(dict[str, Any]):
    """As Lightning keeps a module's arguments: a dictionary of its own class."""


class Scheduler:
    """An object that somebody keeps beside the weights, with others in it."""

    def __init__(self) -> None:
        self.settings, self.steps, self.stage = Settings(lr=0.1), Steps([1, 2]), Settings

    def when(self) -> None: ...


class Steps(list[int]):
    """A list of its own class."""


def lightning(state: State) -> Any:
    """What Trainer.save_checkpoint writes: settings, callbacks and schedules around the weights."""
    scheduler = Scheduler()
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**under("model._orig_mod.", state), "criterion.weight": torch.ones(10)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.3), "dirpath": Path("runs")}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
        "hyper_parameters": Settings(lr=0.1, schedule=scheduler, then=scheduler.when),
    }


def partly_wrapped(state: State) -> State:
    """Some of a network's parts were compiled or given to DataParallel, others not."""
    return {
        re.sub(r"^layer(\d)\.", r"layer\1._orig_mod.", name).replace("bn1.", "bn1.module."): value
        for name, value in state.items()
    }


FORMS: dict[str, tuple[Callable[[State], Any], str]] = {
    "plain": (lambda s: s, ""),
    "a DataParallel of years ago": (lambda s: {"net": under("module.", s), "acc": 91.7}, ""),
    "model_state_dict": (lambda s: {"model_state_dict": s, "optimizer_state_dict": {}}, ""),
    "ema": (lambda s: {"ema": s}, ""),
    "both": (
        lambda s: {"state_dict": s, "state_dict_ema": s},
        "of state_dict, state_dict_ema the weights of state_dict",
    ),
    "compiled": (lambda s: under("_orig_mod.", s), "_orig_mod. before all names is left out"),
    "DDP of a compiled one": (
        lambda s: {"model": under("module._orig_mod.", s)},
        "module._orig_mod. before all",
    ),
    "Lightning": (lambda s: {"state_dict": under("model.", s), "epoch": 3}, "model. before all names"),
    "wrapped twice": (lambda s: under("module.module.", s), "module.module. before"),
    "SWA": (lambda s: {"n_averaged": torch.tensor(5), **under("module.", s)}, ""),
    "profiled": (lambda s: {**s, "total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)}, ""),
    "metadata beside": (lambda s: {**s, "epoch": 200}, "epoch beside the weights are left out"),
    "its arguments": (lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1)}, ""),
    "its best accuracy": (lambda s: {"state_dict": s, "best": np.float64(91.7)}, ""),
    "half precision": (lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}, ""),
    "no counters": (lambda s: {k: v for k, v in s.items() if not k.endswith("tracked")}, ""),
    "kuangliu": (lambda s: {"net": under("module.", s), "acc": 95.4, "epoch": 199}, ""),
    "chenyaofo": (chenyaofo, "downsample is taken for shortcut, and fc for linear"),
    "a network within another": (
        lambda s: {**under("model.", s), "criterion.weight": torch.ones(10), **under("teacher.", s)},
        "model. before the names is left out, and criterion.weight, teacher.conv1.weight",
    ),
    "another wrapper": (
        lambda s: {"params": s, "optim_g": {"lr": torch.ones(2)}, "iter": 4},
        "the weights under 'params' are taken",
    ),
    "Lightning with objects": (
        lightning,
        "model._orig_mod. before the names is left out, and criterion.weight",
    ),
    "wrapped in part": (partly_wrapped, "module and _orig_mod within names are left out"),
    "bfloat16": (lambda s: {k: v.bfloat16() if v.is_floating_point() else v for k, v in s.items()}, ""),
    "APoT": (apot, "downsample is taken for shortcut, and fc for linear"),
    "weiaicunzai": (weiaicunzai, "residual_function.0.weight is taken for layer1.0.conv1.weight; .* and "),
}


LEGACY = ("a DataParallel of years ago", "half precision", "kuangliu")
"""Those that `make test` reads in torch's old format too; `make test-long` reads all."""


@pytest.mark.parametrize(
    ("name", "zipped"),
    [
        pytest.param(
            name,
            zipped,
            marks=[pytest.mark.long] * (not zipped and name not in LEGACY),
            id=f"{'zip' if zipped else 'legacy'}-{name}",
        )
        for zipped in (True, False)
        for name in FORMS
    ],
)
def test_a_checkpoint_is_read_as_people_save_it_and_what_was_understood_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, zipped: bool
) -> None:
    form, words = FORMS[name]
    state = lived_in().state_dict()
    torch.save(form(state), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    loaded = load_weights(Network("resnet20"), tmp_path / "w.pt").state_dict()
    for key, value in state.items():
        half = {"half precision": torch.float16, "bfloat16": torch.bfloat16}.get(name, value.dtype)
        expected = value.to(half).float() if value.is_floating_point() else value
        assert key.endswith("num_batches_tracked") or torch.equal(loaded[key], expected), key
    shown = capsys.readouterr().out
    assert re.search(words, shown) if words else not shown


def test_a_checkpoint_that_was_saved_on_a_gpu_is_read_without_one(tmp_path: Path) -> None:
    """A file of the CPU, with the device in its pickle changed."""
    state = lived_in().state_dict()
    torch.save(state, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as cpu, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as gpu:
        for name in cpu.namelist():
            content = cpu.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\0\0\0cpu" in content
                content = content.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            gpu.writestr(name, content)
    loaded = load_weights(Network("resnet20"), tmp_path / "gpu.pt").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_safetensors_file_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    state, header, values = lived_in().state_dict(), dict[str, Any](), b""
    for name, value in state.items():
        content = value.numpy().tobytes()
        kind = "F32" if value.is_floating_point() else "I64"
        ends = [len(values), len(values) + len(content)]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": ends}
        values += content
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    file = tmp_path / "w.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + values)
    loaded = load_weights(Network("resnet20"), file).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    for content in (b"", b"text", file.read_bytes()[:5000], file.read_bytes()[:-1000]):
        file.write_bytes(content)
        with pytest.raises(SuiteError, match="w.safetensors is no intact safetensors file"):
            load_weights(Network("resnet20"), file)


def test_tensors_of_a_safetensors_file_are_not_matched_by_their_place(tmp_path: Path) -> None:
    """They are sorted by name there: of equal layers the tenth comes before the second."""
    state = {f"x{number:03}": value for number, value in enumerate(lived_in().state_dict().values())}
    safetensors.torch.save_file(state, tmp_path / "m")  # no ending: known by its beginning
    with pytest.raises(SuiteError, match="107 tensors missing"):
        load_weights(Network("resnet20"), tmp_path / "m")
