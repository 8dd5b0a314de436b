"""bfloat16 where torch has no kernels for it: the numbers are those of float32, rounded, and the record says so."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes import ROOT
from fakes.methods import inserted
from fakes.trainings import digits, small
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from suite.methods.qat_symmetric import QatSymmetric
from suite.ranks import Ranks
from suite.recipe import Precision, Sgd
from suite.train import bfloat16
from suite.train.bfloat16 import ROUNDED, TORCHS, Float32Products, kernels, products
from suite.train.fit import Step, fit

CPU = torch.device("cpu")
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""With these torch takes any CPU for one of 2015."""
Layer = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU for which torch has no bfloat16 kernels."""
    monkeypatch.setattr(bfloat16, "kernels", lambda device: ROUNDED)


def last_place(x: Tensor) -> Tensor:
    """One unit in the last place of bfloat16, of which there are 8 bits, at each value."""
    return torch.exp2(torch.floor(torch.log2(x.abs().clamp_min(2.0**-126))) - 7)


def values_and_gradients(layer: Layer, tensors: list[Tensor | None], seed: int) -> list[Tensor]:
    """(the layer's result, the gradients of its input, weight and bias) for a random gradient of the result."""
    leaves = [None if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]
    x, weight, bias = leaves
    assert x is not None and weight is not None
    result = layer(x, weight, bias)
    generator = torch.Generator().manual_seed(seed)
    result.backward(torch.randn(result.shape, generator=generator).bfloat16().to(result.dtype))
    return [result.detach(), *(leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None)]


def check_equal_to_float32_rounded(layer: Layer, tensors: list[Tensor | None], seed: int) -> None:
    """Bit for bit: it is the same sum, and one rounding."""
    half = [None if tensor is None else tensor.bfloat16() for tensor in tensors]
    wide = [None if tensor is None else tensor.float() for tensor in half]
    with Float32Products():
        found = values_and_gradients(layer, half, seed)
    wanted = values_and_gradients(layer, wide, seed)
    assert len(found) == len(wanted) == 3 + (tensors[2] is not None)
    for ours, float32 in zip(found, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        assert bool(((ours.float() - float32).abs() <= last_place(float32)).all())
        assert torch.equal(ours, float32.bfloat16())


@given(
    st.integers(0, 2**31),
    st.sampled_from([(1, 4, 6), (2, 4, 6), (4, 4, 4), (4, 4, 8), (3, 3, 9)]),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 2),
    st.sampled_from([0, 1, 2, "same"]),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
)
def test_a_convolution_and_its_gradients_are_float32s_rounded(
    seed: int,
    channels: tuple[int, int, int],
    kernel: int,
    stride: int,
    padding: int | str,
    dilation: int,
    bias: bool,
    channels_last: bool,
) -> None:
    groups, inputs, outputs = channels
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, inputs, 11, 12, generator=generator)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs // groups, kernel, kernel, generator=generator)
    if padding == "same":
        stride = 1  # torch refuses another
    check_equal_to_float32_rounded(
        lambda x, weight, bias: F.conv2d(x, weight, bias, stride, padding, dilation, groups),
        [x, weight, torch.randn(outputs, generator=generator) if bias else None],
        seed,
    )


@given(
    st.integers(0, 2**31),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_linear_layer_and_its_gradients_are_float32s_rounded(
    seed: int, shape: list[int], inputs: int, outputs: int, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    check_equal_to_float32_rounded(
        F.linear,
        [
            torch.randn(*shape, inputs, generator=generator),
            weight,
            torch.randn(outputs, generator=generator) if bias else None,
        ],
        seed,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_other_dtypes_pass_as_they_are(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors: list[Tensor | None] = [
        torch.randn(shape, generator=generator).to(dtype) for shape in ((2, 3, 8, 8), (4, 3, 3, 3), (4,))
    ]
    plain = values_and_gradients(F.conv2d, tensors, 0)
    with Float32Products():
        found = values_and_gradients(F.conv2d, tensors, 0)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(plain, found, strict=True))


def test_a_gpu_and_other_dtypes_have_nothing_entered(no_kernels: None) -> None:
    assert kernels(torch.device("cuda", 0)) == TORCHS
    assert not isinstance(products(CPU, torch.float16), Float32Products)
    assert isinstance(products(CPU, torch.bfloat16), Float32Products)


def steps(
    level: str, quantized: bool, state: dict[str, object] | None = None
) -> tuple[nn.Module, list[Step]]:
    """A training of three steps an epoch, two epochs."""
    model = inserted(QatSymmetric(), small()) if quantized else small()
    sgd = Sgd(2, 20, 0.05, pad=1, flip=False, precision=Precision(level, "bfloat16"))  # type: ignore[arg-type]
    return model, fit(model, digits(60), sgd, 0, Ranks(), state)  # type: ignore[return-value]


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_no_product_of_a_training_is_left_in_bfloat16(
    level: str, quantized: bool, no_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from below: convolutions and products of matrices get float32, forward and backward, quantized or not."""
    seen: set[tuple[str, torch.dtype]] = set()

    class Below(Float32Products):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.update((str(func), arg.dtype) for arg in args if isinstance(arg, Tensor))
            return func(*args, **(kwargs or {}))

    _, training = steps(level, quantized)
    with Below():
        for _ in range(2):
            next(training)  # type: ignore[call-overload]
    products = {(name, dtype) for name, dtype in seen if "convolution" in name or "mm" in name}
    assert {dtype for _, dtype in products} == {torch.float32}
    assert {name.split(".")[1] for name, _ in products} >= {
        "convolution",
        "convolution_backward",
        "addmm",
        "mm",
    }
    assert torch.bfloat16 in {dtype for _, dtype in seen}


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_a_training_that_resumes_goes_on_to_the_same_bits(
    level: str, quantized: bool, no_kernels: None
) -> None:
    model, training = steps(level, quantized)
    for number, step in enumerate(training):
        if number == 1:
            state = copy.deepcopy(step.state())
    again, rest = steps(level, quantized, state)
    assert len(list(rest)) == 6
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


ASKED = """
import json, torch
from pathlib import Path
from suite.train import bfloat16
assert not bfloat16.kernels.cache_info().currsize, "asked while importing"
from suite.ranks import Ranks
from suite.record.files import Folders
from suite.record.journal import read_events
from suite.recipe import Dataset, Network, Precision, Sgd, Training
from suite.run.stage import run
torch.set_num_threads(1)
entered = []
was = bfloat16.Float32Products.__enter__
bfloat16.Float32Products.__enter__ = lambda self: (entered.append(1), was(self))[1]
sgd = Sgd(1, 256, 0.05, pad=1, flip=False, precision=Precision("O2", "bfloat16"))
stage = Training(Network("resnet20"), Dataset("digits", size=8), sgd)
run(stage, Ranks(), Folders(Path("runs"), Path("unused")))
folder = Path("runs") / stage.key
recorded = [event["bfloat16"] for event in read_events(folder) if event["event"] == "started"]
recorded.append(json.loads((folder / "stage.json").read_text())["bfloat16"])
print(json.dumps([recorded, bool(entered), torch.ops.mkldnn._is_mkldnn_bf16_supported()]))
"""


@pytest.mark.parametrize("restricted", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_run_names_what_multiplied_and_used_it(restricted: bool, tmp_path: Path) -> None:
    surroundings = {name: value for name, value in os.environ.items() if name not in AVX2}
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        cwd=tmp_path,
        env={**surroundings, **(AVX2 if restricted else {}), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    recorded, entered, fast = json.loads(done.stdout.splitlines()[-1])
    assert not (restricted and fast)
    assert recorded == [TORCHS if fast else ROUNDED] * 2
    assert entered is not fast
