"""The stages of a sweep's plan, which somebody else may have written: what of it can be used."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from analysis.errors import AnalysisError
from analysis.read.older import stages_as_today
from suite.record import files
from suite.record.keys import is_key

FORMAT = 1
REQUIRED = ("model", "dataset", "seed", "method", "weight_bits", "act_bits")
WHOLE = ("seed", "weight_bits", "act_bits")
"""Those of them that are whole numbers; the others are text."""
LONGEST_NAME = 100
"""Characters of a name in an error."""


def stages_of(plan: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The stages of a plan that was read from `where`; AnalysisError where they cannot be used."""
    if plan.get("format") != FORMAT:
        raise AnalysisError(
            f"{where} has format {plan.get('format')!r} and this analysis reads {FORMAT}; "
            "plan the sweep again or use the analysis of its commit"
        )
    stages = plan.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise AnalysisError(f"{where} lists no stages; plan the sweep again")
    for stage in stages:
        shown = files.printable(str(stage.get("name", "?"))[:LONGEST_NAME])
        missing = [name for name in ("key", "name", "kind", "params", "needs") if name not in stage]
        params = stage.get("params", {})
        missing += [f"params.{name}" for name in REQUIRED if isinstance(params, dict) and name not in params]
        if missing:
            raise AnalysisError(f"{where}: stage {shown!r} lacks {', '.join(missing)}; plan the sweep again")
        if wrong := _wrong(stage):
            raise AnalysisError(f"{where}: stage {shown!r} has {wrong}; plan the sweep again")
    return stages_as_today(stages)


def _wrong(stage: Mapping[str, Any]) -> str:
    """What of a stage that lacks nothing cannot be; keys name run directories, so that one with a `/` would have
    another folder read."""
    needs, params = stage["needs"], stage["params"]
    if not isinstance(needs, list) or not all(map(is_key, (stage["key"], *needs))):
        return "a key that is not 16 hex digits"
    if not isinstance(stage["name"], str) or not isinstance(stage["kind"], str):
        return "a name or a kind that is no text"
    if not isinstance(params, dict):
        return "params that are none"
    kinds = {name: int if name in WHOLE else str for name in REQUIRED}
    bad = [name for name, kind in kinds.items() if type(params[name]) is not kind]
    bad += [name for name in WHOLE if name not in bad and abs(params[name]) >= 2**63]
    return ", ".join(f"params.{name} {reprlib.repr(params[name])}" for name in bad)
