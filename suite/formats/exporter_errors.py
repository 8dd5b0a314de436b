"""Why torch's exporters cannot take a network, in a line: the layer, the line of its forward, and the reason.

Their own errors name no layer; they are pages for the developers of PyTorch, with colours for a terminal.
"""

from __future__ import annotations

import io
import linecache
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import CodeType

import torch
from torch import Tensor, nn

from suite.recipe.errors import in_a_line
from suite.record.words import counted

WRAPPERS = "torch.onnx"
"""The package whose errors say no more than which of its steps failed; their causes say why."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MEANINGS = {
    "GuardOnDataDependentSymNode": "its way depends on the values of a tensor, and an exported graph has one way",
    "DispatchError": "torch's exporter has no ONNX form of this operator",
}
"""By the class of an error of torch, what it means."""
TORCH = str(Path(torch.__file__).parent)


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, lines of logs and what is printed to stderr: exporters print programs that they gave up."""
    known = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(known)


def why_not_exported(error: Exception, prepared: nn.Module, model: nn.Module, example: Tensor) -> str:
    """What to tell a user where an exporter raised `error` for `prepared`, made of `model`: the layer, with the line
    of its forward or its operator, the reason, and what to do.

    example: float32 [2, channels, height, width].
    """
    cause = _cause(error)
    where = _where(cause, prepared)
    if not where and of_another_batch(model, example) is not None:
        return fixed_batch(model, example)
    reason = MEANINGS.get(type(cause).__name__) or COLOURS.sub("", in_a_line(cause)).rstrip(".")
    if "Constraints violated" in reason:  # the lines below say which
        reason = " ".join(str(cause).split("\n")[1:2]).strip(" -") or reason
    return _refused(where, reason)


def fixed_batch(model: nn.Module, example: Tensor) -> str:
    """What to tell a user of a network whose graph takes `example`'s number of images alone."""
    error = of_another_batch(model, example)
    where = "" if error is None else _where(error, model)
    return _refused(where, f"it takes batches of {counted(len(example), 'image')} alone")


def _refused(where: str, reason: str) -> str:
    return (
        f"{where or 'the network'} cannot be exported: {reason}; write it with other operators, or use --to "
        f"safetensors"
    )


def of_another_batch(model: nn.Module, example: Tensor) -> Exception | None:
    """The error that `model` raises for one image more than `example` has; None where it raises none."""
    try:
        with torch.no_grad(), quiet():
            model(torch.cat([example, example[:1]]))
    except Exception as error:  # of whatever the network's forward does
        return error
    return None


def _cause(error: BaseException) -> BaseException:
    while type(error).__module__.startswith(WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _where(error: BaseException, model: nn.Module) -> str:
    """The innermost layer of `model` whose forward, or whose operator, `error` comes from; empty where none does."""
    names = {id(module): name for name, module in model.named_modules()}
    found, traceback = "", error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        held, node = (frame.f_locals.get(name) for name in ("self", "node"))
        if isinstance(held, nn.Module) and id(held) in names:
            found = _named(names[id(held)]) + _line(frame.f_code, traceback.tb_lineno)
        elif isinstance(node, torch.fx.Node) and (path := module_of(node)) is not None:
            found = f"{_named(path)} ({node.target})"
        traceback = traceback.tb_next
    return found


def module_of(node: torch.fx.Node) -> str | None:
    """The name of the innermost module that an operator of an exported graph comes from; None where it has none."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return None
    return str(list(stack.values())[-1][0]).removeprefix("L['self']").lstrip(".").split("@")[0]


def _named(path: str) -> str:
    plain = path.removesuffix(".layer")
    return f"layer {plain}" if plain else "the network's own forward"


def _line(code: CodeType, number: int) -> str:
    """Of a network's own code; nothing of PyTorch's."""
    if code.co_filename.startswith(TORCH):
        return ""
    return f" (line {number} of {Path(code.co_filename).name}: {linecache.getline(code.co_filename, number).strip()})"
