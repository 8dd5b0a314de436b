"""All that is known of the runs as typed tables: a row a run, and a row a metric of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_object_dtype

from analysis.read.curves import METRICS, Curve


def typed(marked: pd.DataFrame) -> pd.DataFrame:
    """`marked`, each column of the one type that all its values have, in which holes stay holes: `boolean`, `Int64`,
    `float64` or else `string`."""
    found = marked.astype({"test_images": "Int64"})
    for name in filter(lambda name: is_object_dtype(found[name]), found.columns):
        kinds = {type(value) for value in found[name] if value is not None and value == value}
        kind = "boolean" if kinds == {bool} else "Int64" if kinds == {int} else "float64"
        if not kinds or not (kinds <= {int, float} or kinds == {bool}):
            kind = "string"
            found[name] = [None if value is None or value != value else str(value) for value in found[name]]
        found[name] = found[name].astype(kind)
    return found


def epochs(marked: pd.DataFrame, curves: Mapping[str, Curve]) -> pd.DataFrame:
    """What the trainings recorded: `key`, `name`, `epoch` (from 1), `metric` and `value` (float32), in the order of
    the runs. A value that was not recorded or not finite has no row."""
    parts = []
    for key, name in zip(marked["key"], marked["name"], strict=True):
        for metric in METRICS if key in curves else ():
            values = curves[key].values[metric]
            known = np.isfinite(values)
            facts = {"key": key, "name": name, "epoch": curves[key].epochs[known], "metric": metric}
            parts.append(pd.DataFrame(facts | {"value": values[known]}))
    kinds = {"key": "string", "name": "string", "epoch": "int32", "metric": "string", "value": "float32"}
    return pd.concat(parts or [pd.DataFrame(columns=list(kinds))], ignore_index=True).astype(kinds)


def write(
    marked: pd.DataFrame, curves: Mapping[str, Curve], parquet: Path | None, csv: Path | None
) -> list[Path]:
    """Write both tables as Parquet, as CSV, or as both; the second beside the first, with `-epochs` in its name.
    Returns the paths."""
    runs, by_epoch = typed(marked), epochs(marked, curves)
    paths = []
    for file, save in ((parquet, pd.DataFrame.to_parquet), (csv, pd.DataFrame.to_csv)):
        if file is not None:
            beside = file.with_name(f"{file.stem}-epochs{file.suffix}")
            save(runs, file, index=False)
            save(by_epoch, beside, index=False)
            paths += [file, beside]
    return paths
