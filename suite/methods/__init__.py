"""One file a method; the file's name is the method's name, its frozen dataclass its whole configuration.

Nothing else is edited to add one: a new file here is found, hashed, listed, swept and tested by what it is.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from suite.recipe.sources import source_sha256


@cache
def find() -> dict[str, type]:
    """Every method class by its file's name: `k_sigma` holds `KSigma`."""
    found = {}
    for item in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{item.name}")
        source_sha256(module.__name__)
        found[item.name] = getattr(module, "".join(part.title() for part in item.name.split("_")))
    return found
