"""Networks that others wrote: torchvision's, timm's and those of a user's file."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from suite.recipe import Network, user_files
from suite.recipe.errors import SuiteError, first_line


def of_torchvision(name: str, classes: int) -> nn.Module:
    """The classifier that torchvision.models calls `name`, with random weights. Raises SuiteError, with the nearest
    names, where there is none."""
    from suite.networks.torchvision_import import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    aux = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **aux)
    return model


def of_timm(name: str, classes: int) -> nn.Module:
    """The classifier that timm calls `name`, with random weights. Raises SuiteError where timm cannot be imported, and
    where it has or makes none."""
    if importlib.util.find_spec("timm") is None:
        raise SuiteError(f"timm/{name} needs the package timm, which is not installed; pip install timm")
    from suite.networks.torchvision_import import torchvision  # noqa: F401  (first: timm imports it)

    try:
        import timm
    except Exception as error:  # of what it imports
        raise SuiteError(
            f"timm/{name}: timm cannot be imported: {error}; install it with what it needs"
        ) from error

    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    except Exception as error:  # of a name behind the point that is none, for example
        raise SuiteError(f"timm cannot make {name}: {first_line(error)}") from error
    return model


def _unknown(package: str, name: str, known: Sequence[str]) -> SuiteError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)[:3]
    return SuiteError(
        f"{package} has no model {name!r}; the nearest of its {len(known)} are {', '.join(near)}"
    )


def before_import(sha256: str) -> None:
    """Import torchvision, which a CPU-only torch may refuse, as it can be imported, where a user's file names it."""
    content = user_files.content_of(sha256)
    if b"torchvision" in content or b"timm" in content:
        from suite.networks.torchvision_import import torchvision  # noqa: F401


def of_user_file(network: Network) -> nn.Module:
    """What the function or class in the user's file makes; it gets the number of classes where it takes `classes` or
    `num_classes`. Raises SuiteError, with the file's line, where it fails, and where it makes no network."""
    before_import(network.sha256)
    make = user_files.load(user_files.Reference(network.name, network.sha256))
    if isinstance(make, nn.Module):
        raise SuiteError(
            f"{network.name} is a network that is made already; name its class, or a function that makes one: each "
            f"training begins with weights of its own"
        )
    if not callable(make):
        raise SuiteError(
            f"{network.name} is a {type(make).__name__}; name a function or class that makes a network"
        )
    try:
        model = make(**_classes_for(make, network))
    except SuiteError:
        raise
    except (Exception, SystemExit) as error:
        raise user_files.broken(user_files.file_of(network.sha256), error) from error
    if not isinstance(model, nn.Module):
        raise SuiteError(
            f"{network.name} made a {type(model).__name__}, not a torch.nn.Module; return the network"
        )
    model = _unwrapped(model)
    if lazy := [name for name, value in model.named_parameters() if is_lazy(value)]:
        raise SuiteError(
            f"{network.name}: {lazy[0]} has no shape before the network sees an image; where it is made, call it on "
            f"one of the data's size once, as network(torch.zeros(2, 3, 32, 32)), or use no lazy modules"
        )
    return model


def _unwrapped(model: nn.Module) -> nn.Module:
    """Without what torch.compile and DataParallel put around a network: a run compiles and spreads it by itself."""
    inside = getattr(model, "_orig_mod", model.module if isinstance(model, nn.DataParallel) else None)
    return _unwrapped(inside) if isinstance(inside, nn.Module) else model


def _classes_for(make: Callable[..., Any], network: Network) -> dict[str, int]:
    """The number of classes under the name that `make` takes it by. Raises SuiteError where it needs anything else."""
    try:
        takes = inspect.signature(make).parameters
    except ValueError:  # of a class that is not Python's
        return {}
    given = {name: network.classes for name in ("classes", "num_classes") if name in takes}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        name
        for name, one in takes.items()
        if name not in given and one.default is one.empty and one.kind not in kinds
    ]
    if needed:
        object_name = network.name.rpartition(":")[2]
        raise SuiteError(
            f"{network.name} needs {', '.join(needed)}, and gets the number of classes alone; name a function in the "
            f"file that gives the rest: def mine(classes): return {object_name}({needed[0]}=..., ...)"
        )
    return given
