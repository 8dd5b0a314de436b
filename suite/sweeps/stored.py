"""Sweeps as a runs folder records them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.methods import find as find_methods
from suite.recipe import FORMAT, Stage, user_files
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import key_of, to_json
from suite.recipe.words import counted
from suite.record.files import printable, read_bytes, read_object, write_json
from suite.record.keys import is_key
from suite.sweeps.recorded import has_own_types, of_training, recorded_recipe
from suite.sweeps.values import VALUES, from_json


def save_sweep(
    runs: Path,
    name: str,
    options: dict[str, Any],
    stages: Sequence[Stage],
    about: str = "",
    launched: bool = True,
) -> None:
    """Record what a sweep consists of, for `run`, `status`, the tracking and the analysis.

    `stages` are in plan order; `about` is what the sweep asks, in words; `launched` is false of a plan. The record is
    replaced whole: `check_keeps` says whether that would lose something. Raises SuiteError for a name that no file can
    have, and for a stage that its record would not bring back.
    """
    file = _file(runs, name)
    for stage in stages:
        _check_found_by_workers(stage)
    _check_distinct(stages)
    rows = [
        {
            "key": stage.key,
            "name": stage.name,
            "kind": type(stage).__name__,
            "params": stage.params,
            "needs": [needed.key for needed in stage.needs],
            "stage": to_json(stage),
            **of_training(stage),
        }
        for stage in stages
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    user_files.keep([row["stage"] for row in rows], runs)
    content = {"format": FORMAT, "sweep": name, "about": about, "options": options}
    content |= {"launched": launched, "stages": rows}
    write_json(content, file)


def _file(runs: Path, name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise SuiteError(f"sweep name {name!r} is unusable; use letters, digits, '-', '_' and '.'")
    return runs / "sweeps" / f"{name}.json"


def save_plan(
    runs: Path, name: str, options: dict[str, Any], stages: Sequence[Stage], about: str = ""
) -> str:
    """Record a plan, so that `run` finds its keys, unless a sweep of that name was launched: that stays as it is.

    Returns why nothing was recorded, in a line, where the plan has other stages; else nothing.
    """
    file = _file(runs, name)
    if not file.is_file() or not (_was_launched(file) or _lost(file, stages)):
        save_sweep(runs, name, options, stages, about, launched=False)
        return ""
    if {stage.key for stage in stages} == {row["key"] for row in _rows(file)}:
        return ""
    return (
        f"{name} was launched with other stages and stays as it is; to record this plan, name it with --name"
    )


def check_keeps(runs: Path, name: str, stages: Sequence[Stage]) -> None:
    """Raise SuiteError where a launch of `stages` would take stages out of a sweep of that name that was launched.

    More stages than were launched lose nothing.
    """
    file = _file(runs, name)
    if lost := _lost(file, stages) if file.is_file() else []:
        raise SuiteError(
            f"{name} was launched in {runs} with {counted(len(lost), 'stage')} that this one lacks, first: "
            f"{lost[0]}; keep both "
            f"with --name ANOTHER, or let this one take its place with --replace (run directories stay, but neither "
            f"status nor the analysis of {name} shows them any more)"
        )


def _lost(file: Path, stages: Sequence[Stage]) -> list[str]:
    """The names of the stages that were launched, or run by hand from a plan, and are not among `stages`."""
    kept, launched, runs = {stage.key for stage in stages}, _was_launched(file), file.parent.parent
    return [
        str(row.get("name", row["key"]))
        for row in _rows(file)
        if row["key"] not in kept and (launched or (runs / row["key"] / "events.jsonl").exists())
    ]


def _was_launched(file: Path) -> bool:
    """Whether the sweep was more than planned; older records do not say, and count as launched."""
    return bool(_content(file).get("launched", True))


def _check_found_by_workers(stage: Stage) -> None:
    for value in filter(None, (stage, getattr(stage, "method", None))):
        kind, own = type(value), user_files.of_value(value)
        if kind not in (*VALUES, *find_methods().values()) and (own is None or "." in kind.__qualname__):
            raise SuiteError(
                f"{stage.name} uses {kind.__qualname__}, which workers cannot find; put it into a .py file of your "
                f"own, as a class of its top level"
            )


def _check_distinct(stages: Sequence[Stage]) -> None:
    """What MLflow and the tables show of a stage has to be its own: they would take two that look alike for seeds."""
    seen: dict[str, Stage] = {}
    for stage in stages:
        shown = json.dumps([stage.name, stage.params], sort_keys=True, default=str)
        if seen.setdefault(shown, stage).key != stage.key:
            raise SuiteError(
                f"two stages look alike, {stage.key} and {seen[shown].key}: {stage.name}; make the field in which "
                f"they differ a number, a text or a tuple"
            )


def load_sweep(runs: Path, name: str, checked: bool = False) -> tuple[Stage, ...]:
    """The stages of a sweep that was launched in this runs folder, in plan order, with the keys and names that were
    recorded. Raises SuiteError where there is none and, `checked`, where a stage has another key or revision today:
    whoever runs stages has to know, and imports the user's files that they need; whoever reads waits for neither."""
    file = runs / "sweeps" / f"{name}.json"
    if not file.is_file():
        there = ", ".join(sorted(f.stem for f in file.parent.glob("*.json"))) or "none"
        raise SuiteError(f"no sweep {name!r} was planned or launched in {runs}; there is {there}")
    read = _checked if checked else _recorded
    return tuple(read(row, runs) for row in _rows(file))


def about(runs: Path, name: str) -> str:
    """What a sweep asks, as it was recorded; nothing where it was not."""
    return str(read_object(runs / "sweeps" / f"{name}.json").get("about", ""))


def find_stages(runs: Path, keys: Sequence[str], checked: bool = True) -> list[Stage]:
    """The stages whose keys begin with `keys`, one each, from all sweeps of this runs folder; `checked` as in
    `load_sweep`.

    A record that cannot be read is an error only where a key is in no other.
    """
    rows: dict[str, dict[str, Any]] = {}
    unreadable: list[SuiteError] = []
    for file in sorted((runs / "sweeps").glob("*.json")):
        try:
            rows |= {row["key"]: row for row in _rows(file)}
        except SuiteError as error:
            unreadable.append(error)
    found = []
    for key in keys:
        matches = [row for name, row in rows.items() if name.startswith(key)]
        if not matches and unreadable:
            raise unreadable[0]
        if len(matches) != 1:
            problem = (
                f"the keys of {counted(len(matches), 'stage')} begin with" if matches else "no stage has"
            )
            raise SuiteError(
                f"{problem} key {key!r} in {runs}; `suite plan SWEEP` shows the keys and records them"
            )
        found.append((_checked if checked else _recorded)(matches[0], runs))
    return found


def _stage(row: dict[str, Any], runs: Path, names_a_file: bool, any_revision: bool) -> Stage:
    if names_a_file:
        user_files.find_kept(row["stage"], runs)
    stage = from_json(row["stage"], any_revision)
    if not isinstance(stage, Stage) or not all(isinstance(needed, Stage) for needed in stage.needs):
        raise _other_stage(row)
    return stage


def _recorded(row: dict[str, Any], runs: Path) -> Stage:
    """The stage of a row, of whatever revision, with the key and the name that were recorded: to make those of
    thousands anew takes longer than all else that `status` does. No user's file is imported, which would run its code.
    """
    own = _names_a_file(row)
    stage = recorded_recipe(row) if own and has_own_types(row["stage"]) else _stage(row, runs, own, True)
    if stage is None:
        raise _other_stage(row)
    vars(stage).update(key=row["key"], name=printable(row["name"]))
    for needed, key in zip(stage.needs, row["needs"], strict=True):
        vars(needed)["key"] = key
    return stage


def _names_a_file(row: dict[str, Any]) -> bool:
    """Whether the stage may be made of a user's file. To search its text is a tenth of walking through it."""
    return ".py:" in json.dumps(row["stage"])


def _checked(row: dict[str, Any], runs: Path) -> Stage:
    """The stage of a row, to be run. Raises SuiteError where today's code makes another of it."""
    stage = _stage(row, runs, _names_a_file(row), any_revision=False)
    if stage.key != row["key"]:
        _take_key_as_given(stage)
    if stage.key != row["key"]:
        raise _other_stage(row)
    return stage


def _other_stage(row: dict[str, Any]) -> SuiteError:
    return SuiteError(f"the record of {row['key']!r} is not that of its stage; plan the sweep again")


def _take_key_as_given(stage: Stage) -> None:
    """Let a stage and its float stage keep the keys, and with them the run directories, of an older version, which
    made two keys of `lr=1` and `lr=1.0`. Newer records hold floats."""
    for older in (stage, *stage.needs):
        vars(older)["key"] = key_of(older, as_given=True)


def _rows(file: Path) -> list[dict[str, Any]]:
    return list(_content(file)["stages"])


def _content(file: Path) -> dict[str, Any]:
    """A sweep's record. Raises SuiteError where it is none, or cannot be read."""
    try:
        content: dict[str, Any] = json.loads(read_bytes(file))
        version = content.get("format")
        if not all(map(_is_row, content["stages"])):
            raise ValueError
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise SuiteError(f"{file} is not a sweep's record; remove it and launch the sweep again") from None
    except OSError as error:  # another user's, a folder, a pipe
        raise SuiteError(f"{file} cannot be read: {error.strerror or error}") from None
    if version != FORMAT:
        raise SuiteError(
            f"{file} has format {version}, this version reads {FORMAT}; move the folder away or use --runs"
        )
    return content


def _is_row(row: dict[str, Any]) -> bool:
    """Whether its keys are such as name run directories, and all else is there."""
    return (
        all(map(is_key, (row["key"], *row["needs"])))
        and isinstance(row["stage"], dict)
        and isinstance(row["name"], str)
    )
