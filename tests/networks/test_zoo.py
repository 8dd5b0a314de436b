"""Networks of torchvision, of timm and of a user's file, and what is said where one does not fit."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fakes import odd_networks as odd
from fakes.user_files import NETWORK

from suite import networks
from suite.data.complete import check_data
from suite.methods.amax import Amax
from suite.networks import network_check
from suite.networks.graph import graph_of, left_in_float
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training
from suite.recipe.errors import SuiteError


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "vgg11_bn", "googlenet"])
def test_torchvisions_classifiers_have_as_many_outputs_as_there_are_classes(name: str) -> None:
    model = networks.build(Network(f"torchvision/{name}", classes=7)).eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_the_weights_are_drawn_from_torchs_generator() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return next(networks.build(Network("torchvision/resnet18")).parameters())

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


def test_timms_networks_are_built_where_timm_is_installed() -> None:
    network = Network("timm/resnet18", classes=7)
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(
            SuiteError, match="timm/resnet18 needs the package timm, which is not installed; pip inst"
        ):
            networks.build(network)
        return
    assert networks.build(network).eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_an_error_of_timms_without_a_text_is_reported_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, **_: object) -> None:
        raise AssertionError

    timm = ModuleType("timm")
    vars(timm).update(__spec__=object(), is_model=lambda name: True, create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", timm)
    with pytest.raises(SuiteError, match="timm cannot make resnet18: AssertionError$"):
        networks.build(Network("timm/resnet18"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "vgg16",
            "model 'vgg16' is unknown; use one of resnet20, .*, torchvision/NAME, timm/NAME, my_net.py:build",
        ),
        ("torchvision/", "model 'torchvision/' is unknown"),
        ("keras/vgg16", "model 'keras/vgg16' is unknown"),
    ],
)
def test_a_name_of_no_kind_is_refused_when_the_value_is_made(name: str, words: str) -> None:
    with pytest.raises(SuiteError, match=words):
        Network(name)


def test_an_unknown_model_of_torchvision_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(
        SuiteError, match="torchvision has no model 'mobilenetv2'; the nearest of its .* mobilenet_v2"
    ):
        networks.build(Network("torchvision/mobilenetv2"))


def test_only_the_resnets_for_small_images_have_shortcut_a() -> None:
    with pytest.raises(SuiteError, match="shortcut 'A' does not exist for torchvision/resnet18; use 'B'"):
        Network("torchvision/resnet18", "A")
    assert "shortcut" in Training(Network("resnet20"), Dataset("digits"), Sgd(1, 32, 0.1)).params


def of_file(folder: Path, text: str) -> Network:
    (folder / "my_net.py").write_text(text)
    return Network(f"{folder}/my_net.py:build", classes=10)


def test_a_users_network_fits_and_torchs_generator_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    network_check.check_fits(of_file(tmp_path, NETWORK), Dataset("digits", size=8), trains=True)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            NETWORK.replace("Conv2d(3, 8", "Conv2d(1, 8"),
            r"does not take 2 images of digits, float32 \[2, 3, 8, 8\]: .*my_net.py, line \d+: RuntimeError: Given",
        ),
        (
            NETWORK.replace("(classes)\n", "(3)\n"),
            r"gives \[2, 3\] for 2 images, not \[2, 10\], a value a class; let what makes it take `classes`",
        ),
        (NETWORK.replace("return self.linear", "return 1, self.linear"), "gives a tuple for 2 images"),
        (
            NETWORK.replace("forward(self, x)", "forward(self, x, y)"),
            "missing 1 .* 'y'; its forward must take these",
        ),
        (NETWORK.replace("flatten(1)", "reshape(2, -1)"), "does not take 3 images"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused_before_anything_runs(
    tmp_path: Path, text: str, words: str
) -> None:
    training = Training(
        of_file(tmp_path, text), Dataset("digits", size=8), Sgd(1, 32, 0.1, precision=Precision("O0"))
    )
    with pytest.raises(SuiteError, match=words):
        network_check.check_networks([Recipe(training, Amax())])


DIGITS = Dataset("digits", size=8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (odd.LENET, r"my_net.py, line \d+: RuntimeError: view size is not compatible.*write x.flatten\(1\)"),
        (
            odd.DROPOUT,
            "gives other values for the same images in evaluation mode.* where self.training alone",
        ),
        (odd.HIDDEN_BUFFER, "has the buffer mask that is drawn at random and is not in its state_dict"),
        (odd.ATTRIBUTE, "has something that is drawn at random and is not in its state_dict"),
        (odd.OTHER_SHAPES, "made two networks of which one does not take the other's weights"),
        (odd.SOFTMAX, "gives probabilities, and a training takes their softmax again; leave softmax out"),
        (odd.FROZEN, "my_net.py:Net cannot be trained: .*does not require grad"),
    ],
)
def test_a_network_that_would_fail_or_be_another_in_a_run_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    network = replace(of_file(tmp_path, odd.HEAD + text), name="my_net.py:Net")
    with pytest.raises(SuiteError, match=words):
        network_check.check_fits(network, DIGITS, trains=True)


@pytest.mark.parametrize("text", [odd.FIXED_BUFFER, odd.UNUSED, odd.RECURRENT, odd.U_NET, odd.NORM_IN_HEAD])
def test_a_network_that_only_looks_odd_fits(tmp_path: Path, text: str) -> None:
    network = replace(of_file(tmp_path, odd.HEAD + text), name="my_net.py:Net")
    network_check.check_fits(network, DIGITS, trains=True)
    left = left_in_float(networks.build(network))
    expected = {odd.RECURRENT: ("lstm.weight_ih_l0", "lstm.weight_hh_l0"), odd.U_NET: ("up.weight",)}
    assert left == expected.get(text, ("extra.weight",) if text == odd.UNUSED else ())


def test_what_trainings_need_of_a_network_by_their_batches_and_ranks_is_checked(tmp_path: Path) -> None:
    unused = replace(of_file(tmp_path, odd.HEAD + odd.UNUSED), name="my_net.py:Net")
    with pytest.raises(SuiteError, match="extra.weight takes no part in what it gives, and ranks that share"):
        network_check.check_fits(unused, DIGITS, trains=True, shared=True)
    (tmp_path / "other").mkdir()
    norm = replace(of_file(tmp_path / "other", odd.HEAD + odd.NORM_IN_HEAD), name="my_net.py:Net")
    sgd = Sgd(
        1, 171, 0.1, pad=1, precision=Precision("O0")
    )  # 1,198 images are seven such batches and one image
    with pytest.raises(
        SuiteError, match="cannot be trained on a single image, as in the last batch of an epoch, 1,1"
    ):
        check_data([Training(norm, DIGITS, sgd)], tmp_path)
    check_data([Training(norm, DIGITS, replace(sgd, batch=128))], tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("build = Base(10)", "my_net.py:build is a network that is made already; name its class"),
        (
            "def build(width, classes): ...",
            r"needs width, and gets the number of classes alone; .* def mine\(classes\): return build\(width=",
        ),
        ("def build(classes): return nn.Sequential(nn.LazyConv2d(4, 3))", "0.weight has no shape before"),
        (
            "def build(classes): raise SystemExit(2)",
            r"line \d+: it ends the process \(exit status 2\), as a script",
        ),
    ],
)
def test_what_makes_no_network_of_a_number_of_classes_says_what_would(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(SuiteError, match=words):
        networks.build(of_file(tmp_path, f"{odd.HEAD}\n{text}\n"))


def test_what_is_put_around_a_network_is_taken_off(tmp_path: Path) -> None:
    """torch.compile itself takes seconds; it holds the network under this name."""
    text = odd.WRAPPED + "def build(classes): return nn.DataParallel(Compiled(Base(classes)))"
    model = networks.build(of_file(tmp_path, f"{odd.HEAD}\n{text}\n"))
    assert type(model).__name__ == "Base" and set(model.state_dict()) >= {"conv.weight", "linear.weight"}


def test_nin_has_the_layers_and_the_parameters_of_source_001s_code() -> None:
    """Counted by hand from its file: nine convolutions with biases, each with BatchNorm, the first 5x5 of 192."""
    model = networks.build(Network("nin"))
    graph = graph_of(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 966_986 + 2_836
    assert (graph.first, graph.last, len(graph.conv_bn)) == (("model.0.conv",), ("model.10.conv",), 9)
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
