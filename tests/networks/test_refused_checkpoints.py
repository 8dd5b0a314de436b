"""What is no checkpoint of the network, or none at all, is refused with what to do."""

from __future__ import annotations

import gzip
import pickle
import re
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
from suite.networks.checkpoint_reading import read
from suite.recipe import Network
from suite.recipe.errors import SuiteError

State = dict[str, Tensor]


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


@pytest.mark.parametrize("through", [("state_dict",), ("run", "model")], ids=" in ".join)
def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path, through: tuple[str, ...]) -> None:
    """To look for the weights in it took for ever."""
    file, whole = tmp_path / "mine.pt", dict[str, Any]()
    inside = whole
    for name in through[:-1]:
        inside = inside.setdefault(name, {"a": torch.ones(2)} if name == "run" else {})
    inside[through[-1]] = whole
    torch.save(whole, file)
    with pytest.raises(SuiteError, match="holds no state_dict"):
        load_weights(Network("resnet20", "A"), file)


def test_an_archive_with_damaged_names_is_refused_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    torch.save({"a": torch.ones(2)}, file)
    file.write_bytes(file.read_bytes().replace(b"data.pkl", b"data\xffpkl"))
    with pytest.raises(SuiteError, match="cut off or damaged, or not of torch.save; fetch it anew"):
        read(file)


def test_values_of_four_bits_are_refused_in_a_line(tmp_path: Path) -> None:
    """torch computes nothing with them."""
    file = tmp_path / "mine.pt"
    torch.save({"a": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, file)
    with pytest.raises(SuiteError, match="a is float4, two values a byte; save the weights as float32"):
        load_weights(Network("resnet20", "A"), file)
