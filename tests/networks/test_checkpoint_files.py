"""Checkpoints as people save them load to the same weights, what was understood of them is printed, and the rest is
refused with what to do."""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from fakes.networks import lived_in
from fakes.user_files import NETWORK
from torch import Tensor

from suite.cli.main import main
from suite.networks import build, recognize
from suite.networks.checkpoint_files import load_weights
from suite.networks.checkpoint_reading import read
from suite.recipe import Network
from suite.recipe.errors import SuiteError

State = dict[str, Tensor]


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


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


def with_nan(state: State) -> State:
    return {**state, "layer2.0.conv1.weight": state["layer2.0.conv1.weight"] * float("nan")}


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "a whole network": (
        lambda s: lived_in(),
        r"object of suite.networks.cifar_resnet.ResNet, .*two lines:\nmodel = torch",
    ),
    "two networks in one": (lambda s: {**s, **under("module.", s)}, "107 unknown .first: module.bn1.bias"),
    "another order": (
        lambda s: dict(reversed({f"{k}.x": v for k, v in s.items()}.items())),
        r"107 tensors missing \(first: bn1.bias\)",
    ),
    "a student and a teacher": (
        lambda s: {**under("student.", s), **under("teacher.", s)},
        "107 tensors missing .*; 214 unknown",
    ),
    "NaN": (with_nan, "layer2.0.conv1.weight holds inf or NaN; it was saved of a training that diverged"),
    "nothing": (
        lambda s: {},
        "holds no state_dict: expected names and tensors, or those under one of state_dict",
    ),
    "weights on the device meta": (
        lambda s: {name: value.to("meta") for name, value in s.items()},
        "has no values; it was saved of a network on the device meta",
    ),
    "whole numbers": (lambda s: {k: v.long() for k, v in s.items()}, "is int64, not float; save the weights"),
    "complex numbers": (
        lambda s: {k: v.to(torch.complex64) if v.is_floating_point() else v for k, v in s.items()},
        "is complex64, not float",
    ),
    "metadata alone": (
        lambda s: {"epoch": 3, "lr": torch.tensor(0.1)},
        r"holds no state_dict: .*; it holds epoch \(int\), lr \(Tensor\)",
    ),
    "arrays of NumPy": (
        lambda s: {name: value.numpy() for name, value in s.items()},
        "holds no state_dict: it holds arrays of NumPy; save them as tensors",
    ),
    "a list": (lambda s: list(s.values()), "holds no state_dict: .*; it holds a list"),
    "two of other names": (
        lambda s: {"generator": s, "discriminator": s},
        "holds weights under 'generator', 'discriminator'; save those that are meant",
    ),
    "a network among others": (
        lambda s: {"model": lived_in(), "epoch": 3},
        r"object of suite.networks.cifar_resnet.ResNet under 'model', .*lines:\nmodel = .*=False\)\[\"model\"\]\n",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_checkpoint_of_the_network_is_refused(tmp_path: Path, name: str) -> None:
    form, words = REFUSED[name]
    torch.save(form(lived_in().state_dict()), tmp_path / "w.pt")
    with pytest.raises(SuiteError, match=words):
        load_weights(Network("resnet20"), tmp_path / "w.pt")


FETCHED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it is empty; fetch it anew"),
    "a web page": (b"<!DOCTYPE html><html>not found</html>", "it is a web page; fetch the file itself"),
    "a page after a comment": (b"\n<!-- x --><html>", "it is a web page"),
    "a store's refusal": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "it is a web page",
    ),
    "a service's refusal": (
        b'{"error": "rate limited"}',
        'it is text, \'{"error": "rate limited"}\'; fetch the',
    ),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "it is Git LFS's pointer to the file; run git lfs pull",
    ),
    "compressed": (gzip.compress(b"weights"), "it is compressed by gzip; unpack it first"),
    "half a file": (
        b"PK\x03\x04" + bytes(500),
        "it is a zip archive that is cut off or damaged, or not of torch",
    ),
    "a pickle": (pickle.dumps({"a": 1}), "it is damaged, or neither of torch.save nor"),
    "zeros": (bytes(4000), "it is damaged, or neither"),
    "noise": (bytes(range(255, 0, -1)), "it is damaged, or neither"),
}


@pytest.mark.parametrize("what", FETCHED)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_what_was_fetched_instead_of_a_checkpoint_is_named_and_torchs_advice_is_not_given(
    tmp_path: Path, what: str, ending: str
) -> None:
    content, words = FETCHED[what]
    (tmp_path / f"w.{ending}").write_bytes(content)
    with pytest.raises(SuiteError) as refused:
        load_weights(Network("resnet20"), tmp_path / f"w.{ending}")
    said = str(refused.value).replace("torch.load reads with weights_only", "")
    assert words in said or (ending == "safetensors" and words.startswith("it is damaged"))
    assert not re.search("weights_only|arbitrary code|PyTorch 2", said)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "m.safetensors.index.json",
            "is the index of a checkpoint in several; join them, and name .*m.safetensors:",
        ),
        (
            "m-00002-of-00003.safetensors",
            "is one of 3 files of a checkpoint in several; join them, and name .*/m.saf",
        ),
        (
            "m-00001-of-00002.bin",
            r"is one of 2 files .*, and name .*m.bin:\nimport torch; from glob import glob",
        ),
    ],
)
def test_a_checkpoint_in_several_files_is_to_be_joined_first(tmp_path: Path, name: str, words: str) -> None:
    """A stage is known by the SHA-256 of its one file."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(SuiteError, match=words):
        read(tmp_path / name)


def test_the_lines_that_join_a_checkpoint_join_it(tmp_path: Path) -> None:
    state = lived_in().state_dict()
    half = {name: value for name, value in state.items() if name.startswith("layer")}
    rest = {name: value for name, value in state.items() if name not in half}
    for number, part in enumerate((half, rest), start=1):
        safetensors.torch.save_file(part, tmp_path / f"m-0000{number}-of-00002.safetensors")
    with pytest.raises(SuiteError) as refused:
        read(tmp_path / "m-00001-of-00002.safetensors")
    exec("\n".join(str(refused.value).splitlines()[1:]), {})
    loaded = load_weights(Network("resnet20"), tmp_path / "m.safetensors").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_torchscript_and_other_archives_are_named(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "s.pt"))  # type: ignore[no-untyped-call]
    np.savez(tmp_path / "a.npz", weight=np.ones(3))
    for name, words in (
        ("s.pt", "it is TorchScript, .*this line:\ntorch.save"),
        ("a.npz", "zip archive of weight.npy"),
    ):
        with pytest.raises(SuiteError, match=words):
            read(tmp_path / name)


def test_tensors_of_a_safetensors_file_are_not_matched_by_their_place(tmp_path: Path) -> None:
    """They are sorted by name there: of equal layers the tenth comes before the second."""
    state = {f"x{number:03}": value for number, value in enumerate(lived_in().state_dict().values())}
    safetensors.torch.save_file(state, tmp_path / "m")  # no ending: known by its beginning
    with pytest.raises(SuiteError, match="107 tensors missing"):
        load_weights(Network("resnet20"), tmp_path / "m")


def test_a_checkpoint_is_recognized_by_its_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for network in (Network("resnet32", "A", 10), Network("resnet20", "B", 100), Network("nin", "B", 7)):
        file = tmp_path / "it.pt"
        torch.save({"net": under("module.", build(network).state_dict())}, file)
        [(found, model, _)] = recognize.matches(read(file), file)
        assert (found.name, found.classes) == (network.name, network.classes)
        assert network.name == "nin" or found.shortcut == network.shortcut
        assert sum(p.numel() for p in model.parameters()) == sum(
            p.numel() for p in build(network).parameters()
        )
    torch.save({"weight": torch.ones(3, 3)}, file)
    monkeypatch.setattr(recognize, "_of_torchvision", tuple)
    assert recognize.matches(read(file), file) == []


def test_a_checkpoint_of_torchvisions_network_or_of_ones_own_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, mine = tmp_path / "it.pt", tmp_path / "my_net.py"
    names = "torchvision/squeezenet1_1", "torchvision/resnet18", "torchvision/mobilenet_v3_small"
    monkeypatch.setattr(recognize, "_of_torchvision", lambda: names)
    torch.save(build(Network("torchvision/resnet18", classes=7)).state_dict(), file)
    assert main(["inspect", str(file), "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "it is a torchvision/resnet18, 7 outputs" in said
    assert f'Pretrained(Network("torchvision/resnet18", "B", 7), Dataset("NAME"), "{file}")' in said
    mine.write_text(NETWORK)
    torch.save(build(Network(f"{mine}:build", classes=10)).state_dict(), file)
    assert main(["inspect", str(file), "--data", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "its weights: conv.weight [8, 3, 3, 3]" in said and "fits no network of the suite" in said
    assert main(["inspect", str(file), "--model", f"{mine}:build", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"suite launch cifar10 --weights {file} --model {mine}:build --shortcut B" in said
    assert main(["inspect", str(file), "--model", "nin"]) == 2
    assert "is not a nin with" in capsys.readouterr().err


def test_inspect_says_what_a_file_is_and_how_to_launch_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(build(Network("resnet20", "A", 10)).half().state_dict(), file)
    assert main(["inspect", str(file), "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "it is a resnet20, shortcut A, 10 outputs" in said and "float16" in said
    assert f"suite launch cifar10 --weights {file} --model resnet20 --shortcut A" in said
    assert "accuracy not measured" in said
    assert main(["inspect", str(tmp_path / "none.pt")]) == 2
