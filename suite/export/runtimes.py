"""The runtimes that answer with an exported network: which are installed, and an engine of each precision."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from suite.export import agreement
from suite.export.onnx_file import could_clip
from suite.formats import onnx_graph, pt2e, torch_ao
from suite.formats.openvino_graph import for_openvino
from suite.networks.channels_last import channels_last
from suite.recipe.errors import SuiteError, in_a_line
from suite.record.provenance import cpu_flags

Precision = Literal["float32", "bfloat16", "int8"]
Array = NDArray[np.float32]

PACKAGES = {
    "onnxruntime": ("export", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": ("openvino", ("onnx", "onnxscript", "openvino")),
    "inductor": ("pt2e", ("torchao",)),
    "torch_ao": ("", ()),
}
"""Of each runtime, the extra of pyproject.toml and the packages that it needs beside PyTorch."""

BFLOAT16 = ("avx512_bf16", "amx_bf16")
"""Processor flags of units that multiply bfloat16."""


def how_to_install(extra: str) -> str:
    """The command for an extra of pyproject.toml, in the environment that runs this."""
    return f"in the suite's folder: {sys.executable} -m pip install --editable '.[{extra}]'"


def check_installed() -> None:
    """Raise SuiteError unless the packages of the extra `export` are there."""
    lacking = [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]
    if lacking:
        raise SuiteError(f"ONNX needs {', '.join(lacking)}, not installed here; {how_to_install('export')}")


def versions(facts: dict[str, Any]) -> dict[str, str]:
    """Those of `provenance` and of the packages that write or run an exported file, where they are installed."""
    found = dict(facts["versions"])
    for name in ("onnx", "onnxruntime", "openvino", "torchao", "safetensors"):
        if importlib.util.find_spec(name):
            found[name] = metadata.version(name)
    return found


def why_not(runtime: str) -> str:
    """Why a runtime cannot be used here, with what to do; empty where it can."""
    extra, packages = PACKAGES[runtime]
    lacking = [name for name in packages if not importlib.util.find_spec(name)]
    if lacking:
        return f"{', '.join(lacking)} is not installed; {how_to_install(extra)}"
    if runtime == "torch_ao":
        return torch_ao.why_not()
    if runtime == "inductor":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return "TorchInductor needs a C++ compiler; install g++"
    return ""


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16."""
    return any(flag in cpu_flags() for flag in BFLOAT16)


def why_no_precision(runtime: str, precision: Precision) -> str:
    """Why a runtime that is here does not compute in this precision; empty where it does."""
    if precision == "bfloat16" and runtime == "onnxruntime":
        return "it has no bfloat16 kernels for CPUs"
    if precision == "bfloat16" and not has_bfloat16():
        return f"this processor has no bfloat16 unit ({' or '.join(BFLOAT16)})"
    return ""


@dataclass
class Exported:
    """A network as runtimes take it. What a runtime needs is made when the first asks for it. int8: whether `model`
    is quantized, else a float network."""

    key: str
    name: str
    model: nn.Module
    example: torch.Tensor
    """float32 [2 or more, channels, height, width]."""
    int8: bool
    _made: dict[str, Any] = field(default_factory=dict)

    def onnx(self, unsigned: tuple[str, ...] = ()) -> bytes:
        """The ONNX file, the weights of these layers unsigned."""
        name = f"onnx, unsigned {unsigned}"
        if name not in self._made:
            made = onnx_graph.onnx_model(self.model, self.example[:2], unsigned)
            self._made[name] = made.SerializeToString()
        content: bytes = self._made[name]
        return content

    def module(self, precision: Precision) -> nn.Module:
        """What TorchInductor compiles."""
        if self.int8:
            if "program" not in self._made:
                self._made["program"] = pt2e.program(self.model, self.example[:2])
            module: nn.Module = self._made["program"].module()
            return module
        module = channels_last(self.model)
        return _Bfloat16(module) if precision == "bfloat16" else module

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that it is measured in."""
        return ("int8",) if self.int8 else ("float32", "bfloat16")


class _Bfloat16(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        import copy

        self.model = copy.deepcopy(model).to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(x.to(torch.bfloat16))
        return logits.float()


@dataclass
class Engine:
    """A network in a runtime, ready to run. run: float32 [batch, channels, height, width] to logits."""

    network: Exported
    runtime: str
    precision: Precision
    batch: int
    run: Callable[[Array], Array]
    kernels: dict[str, int] = field(default_factory=dict)
    """How many operators or layers of each kind it has, as far as the runtime says."""

    def answers(self, images: Iterator[torch.Tensor], n: int) -> NDArray[np.int64]:
        """The class of the largest logit of each of `n` images; `images` are batches of any size."""
        classes: NDArray[np.int64] = self.logits(torch.cat(list(images))[:n]).argmax(1)
        return classes

    def logits(self, images: torch.Tensor) -> Array:
        """[n, classes] of float32 [n, channels, height, width]; the last batch is filled up."""
        x, found = images.contiguous().numpy(), []
        for at in range(0, len(x), self.batch):
            part = x[at : at + self.batch]
            filled = np.concatenate([part, np.repeat(part[-1:], self.batch - len(part), 0)])
            found.append(self.run(filled)[: len(part)])
        return np.concatenate(found)


def engine(network: Exported, runtime: str, precision: Precision, batch: int, threads: int) -> Engine:
    """Made for batches of one size, on so many threads. Raises SuiteError where the runtime takes not the network."""
    try:
        run, kernels = MAKERS[runtime](network, precision, batch, threads)
    except SuiteError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise SuiteError(
            f"{runtime} does not take {network.name} in {precision}: {in_a_line(error)}; leave it out with --runtimes"
        ) from error
    return Engine(network, runtime, precision, batch, run, kernels)


def _onnxruntime(network: Exported, precision: Precision, batch: int, threads: int) -> Any:
    clips = could_clip(network.model) if network.int8 and not agreement.has_vnni() else ()
    content = network.onnx(clips)
    session = agreement.session(content, True, threads=threads)
    kernels = agreement.kernels(agreement.optimized(content)) if network.int8 else {}
    return lambda x: session.run(["logits"], {"images": x})[0], kernels


def openvino_model(file: bytes | Path, precision: Precision, batch: int, threads: int) -> Any:
    """The content of an ONNX file, or a file, compiled by OpenVINO for this processor. precision: of what is not
    integers in it; OpenVINO would take bfloat16 by itself where the processor has it."""
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    shape = model.input(0).get_partial_shape()
    shape[0] = batch
    model.reshape(shape)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
    }
    return core.compile_model(model, "CPU", settings)


def openvino_kernels(compiled: Any) -> dict[str, int]:
    """How many of its operators of each kind that multiplies, adds or pools run on u8, i8 or other types."""
    found: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = str(info["layerType"].astype(str)) if "layerType" in info else ""
        if kind in ("Convolution", "FullyConnected", "Eltwise", "Pooling"):
            name = f"{kind} {info['runtimePrecision'].astype(str)}"
            found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def _openvino(network: Exported, precision: Precision, batch: int, threads: int) -> Any:
    compiled = openvino_model(for_openvino(network.onnx()), precision, batch, threads)
    request = compiled.create_infer_request()
    return lambda x: request.infer({0: x})[0].copy(), openvino_kernels(compiled)


def _inductor(network: Exported, precision: Precision, batch: int, threads: int) -> Any:
    torch.set_num_threads(threads)
    example = network.example[:1].expand(batch, -1, -1, -1).contiguous()
    run, kernels = pt2e.compiled(network.module(precision), example)
    return lambda x: run(torch.from_numpy(x)).numpy(), kernels


def _torch_ao(network: Exported, precision: Precision, batch: int, threads: int) -> Any:
    torch.set_num_threads(threads)
    module = torch_ao.QuantizedOperators(network.model) if network.int8 else network.module(precision)  # type: ignore[arg-type]

    def run(x: Array) -> Array:
        with torch.no_grad():
            logits: Array = module(torch.from_numpy(x)).numpy()
            return logits

    run(network.example[:1].numpy())  # what its operators do not take they say only when they compute
    return run, dict(getattr(module, "kernels", {}))


MAKERS: dict[str, Callable[[Exported, Precision, int, int], Any]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "inductor": _inductor,
    "torch_ao": _torch_ao,
}
