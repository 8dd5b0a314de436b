"""Reads a cluster.toml: each value is checked against its type, and an error names its line."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm.cluster_error import ClusterError, Location
from slurm.options import check_options
from suite.recipe.errors import SuiteError


def _text(at: Location, value: object) -> None:
    if not isinstance(value, str):
        raise ClusterError(at, f'must be text in quotes, got {value!r}; write {at[-1]} = "..."')
    if not value or not value.isprintable() or re.search(r"\s", value):
        raise ClusterError(at, f"must be one word, got {value!r}; write it, or leave the line out")


def _whole(at: Location, value: object) -> None:
    if type(value) is not int:
        raise ClusterError(at, f"must be a whole number without quotes or point, got {value!r}")


def _number(at: Location, value: object) -> None:
    if type(value) not in (int, float) or not 0 < value < float("inf"):  # type: ignore[operator]
        raise ClusterError(at, f"must be a number above 0 without quotes or unit, got {value!r}")


def _lines(at: Location, value: object) -> None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(line, str) for line in value):
        wanted = f"[{value!r}]".replace("'", '"') if isinstance(value, str) else '["...", "..."]'
        raise ClusterError(at, f"must be a list of lines of text, got {value!r}; write {at[-1]} = {wanted}")
    if any("\0" in line for line in value):
        raise ClusterError(at, "holds a NUL character; leave it out")


def check_setup(lines: Sequence[str]) -> None:
    """Raise ClusterError where the lines of `setup` are not what bash can read, if bash is here to say so."""
    bash = shutil.which("bash")
    if not lines or bash is None:
        return
    text = "\n".join(lines)
    # A line may set extglob for those after it, which bash -n, that runs nothing, would not know.
    how = {"input": text.encode(), "capture_output": True, "timeout": 60}
    done = subprocess.run([bash, "--norc", "-O", "extglob", "-n"], **how)  # type: ignore[call-overload]
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip().removeprefix(f"{bash}: ").partition("\n")[0]
        raise ClusterError(("setup",), f"is nothing that bash can run: {message or 'it gives no reason'}")


def _table(at: Location, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ClusterError(at, f"must be a table, got {value!r}; write [{at[-1]}] and below it NAME = VALUE")
    return value


KEPT = r"BASHOPTS|BASH_VERSINFO|E?UID|PPID|SHELLOPTS|SLURM_(ARRAY_|JOB_|RESTART_COUNT|STEP_).*|SLURM_JOBID"
"""The variables that bash takes no other values of, and those by which a job knows which it is."""


def _variables(at: Location, value: object) -> None:
    for name, content in _table(at, value).items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ClusterError(
                (*at, name), "is no name of an environment variable; use letters, digits and _"
            )
        if re.fullmatch(KEPT, name):
            raise ClusterError((*at, name), "is set by bash or SLURM; leave the line out")
        if not isinstance(content, str):
            raise ClusterError((*at, name), f'must be text in quotes, got {content!r}; write {name} = "..."')
        if "\0" in content:
            raise ClusterError((*at, name), "holds a NUL character; leave it out")


def _options(at: Location, value: object) -> None:
    check_options(at, _table(at, value))


def _request(at: Location, value: object) -> None:
    for name, content in _table(at, value).items():
        if name in TABLES:
            _options((*at, name), content)
        elif name not in REQUEST:
            raise ClusterError((*at, name), f"cannot be set here; there is {', '.join((*REQUEST, *TABLES))}")


REQUEST = (
    "account", "constraint", "cpus_per_rank", "gpus_per_node", "memory_gb_per_rank", "minutes", "parallel",
    "partition", "qos", "warning_seconds",
)  # fmt: skip
"""What [training] and [recipe] may ask for otherwise."""

TABLES = ("sbatch", "srun")
"""The tables in them: [training.sbatch] and so on."""


def _counts(at: Location, value: object) -> None:
    for name, content in _table(at, value).items():
        _whole((*at, name), content)


CHECKS: dict[str, Callable[[Location, object], None]] = {
    "str | None": _text,
    "int": _whole,
    "float": _number,
    "tuple[str, ...]": _lines,
    "dict[str, str]": _variables,
    "dict[str, int]": _counts,
    "dict[str, str | int]": _options,
    "dict[str, object]": _request,
}
"""The check of a value by its annotation in `Cluster`."""


def check_types(kinds: Mapping[str, str], values: Mapping[str, object]) -> None:
    """Raise ClusterError for the first of `values` that is not of its kind, an annotation as in CHECKS.

    A name without a kind is refused.
    """
    for name, value in values.items():
        if name not in kinds:
            raise ClusterError((name,), f"is unknown; there is {', '.join(sorted(kinds))}")
        if value is not None or not kinds[name].endswith("None"):
            CHECKS[kinds[name]]((name,), value)


def read_toml(file: Path) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file and its content. Raises SuiteError where it cannot be read, with the line."""
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8-sig")  # some editors begin a file with a byte order mark
        return text, tomllib.loads(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SuiteError(f"cannot read {file}: {reason}; copy slurm/cluster.toml and fill it in") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{file}, line {line}: it is not UTF-8; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # also of a number of thousands of digits, and of brackets
        raise SuiteError(f"{file} is not TOML: {error}") from None


def line_of(text: str, at: Location) -> int | None:
    """The line, from 1, where the statement begins that gives TOML `text` a value at `at`; None where none does.

    tomllib gives no lines: the statement is what stands between the longest beginning of the text that parses without
    the value and the shortest that has it.

    >>> line_of('minutes = 5\\n\\n[retries]\\nnode = 1\\n', ("retries", "node"))
    4
    """
    lines, begin = text.splitlines(), 1
    for end in range(1, len(lines) + 1):
        try:
            found: Any = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # inside a value of several lines
        for name in at:
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is not None:
            return begin
        begin = end + 1
    return None
