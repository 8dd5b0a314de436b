"""Networks that others wrote: torchvision's, timm's and those of a user's file."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Sequence

from torch import nn

from suite.recipe import Network, user_files
from suite.recipe.errors import SuiteError


def of_torchvision(name: str, classes: int) -> nn.Module:
    """The classifier that torchvision.models calls `name`, with random weights."""
    from suite.networks.torchvision_import import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    aux = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **aux)
    return model


def of_timm(name: str, classes: int) -> nn.Module:
    """The classifier that timm calls `name`, with random weights."""
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
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
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
    `num_classes`."""
    before_import(network.sha256)
    make = user_files.load(user_files.Reference(network.name, network.sha256))
    if not callable(make):
        raise SuiteError(
            f"{network.name} is a {type(make).__name__}; name a function or class that makes a network"
        )
    try:
        takes = inspect.signature(make).parameters
        model = make(**{name: network.classes for name in ("classes", "num_classes") if name in takes})
    except SuiteError:
        raise
    except Exception as error:
        raise user_files.broken(user_files.file_of(network.sha256), error) from error
    if not isinstance(model, nn.Module):
        raise SuiteError(
            f"{network.name} made a {type(model).__name__}, not a torch.nn.Module; return the network"
        )
    return model
