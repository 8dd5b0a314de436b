"""A checkpoint is recognized by its shapes, and `suite inspect` says how to launch it."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from fakes.networks import under
from fakes.user_files import NETWORK

from suite.cli.main import main
from suite.networks import build, recognize
from suite.networks.checkpoint_reading import read
from suite.recipe import Network


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


def test_a_network_that_cannot_be_made_without_values_is_tried_where_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RegNet counts its blocks with a tensor."""
    file, name = tmp_path / "it.pt", "torchvision/regnet_x_400mf"
    torch.save(build(Network(name, classes=7)).state_dict(), file)
    assert main(["inspect", str(file), "--model", name, "--data", str(tmp_path)]) == 0
    assert f"it is a {name}, 7 outputs" in capsys.readouterr().out
