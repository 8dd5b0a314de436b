"""Takes names and passwords out of what is shown, recorded or passed on."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from suite.recipe.errors import first_line


def without_secrets(text: str) -> str:
    """A text, such as what a library says of an address, without the name and password before an address's host,
    without the values of its query, and without what the environment holds of MLflow's passwords."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    text = text.replace(address, without_login(address)) if address else text
    held = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    login = address.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for secret in filter(None, [*held, login, unquote(login)]):
        text = text.replace(secret, "***")
    return re.sub(r"(://)[^\s/@'\"]*@", r"\1", re.sub(r"([?&][\w-]*)=[^&\s'\"]*", r"\1=***", text))


def safe_line(error: BaseException) -> str:
    """The first line of what a library's error says, without_secrets."""
    return without_secrets(first_line(error))


def without_login(address: str) -> str:
    """An address, `scheme://name:password@host/path`, without name and password.

    >>> without_login("https://me:secret@mlflow.example:8443/lab")
    'https://mlflow.example:8443/lab'
    """
    scheme, mark, rest = address.partition("://")
    return address if scheme.startswith("sqlite") else f"{scheme}{mark}{rest.rpartition('@')[2]}"
