"""Top-1 of exported networks against their latency: a row for each configuration, runtime, precision and batch."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.compare.pareto import LATENCY
from analysis.compare.significance import of_share, paired
from suite.record.words import counted

PANEL = ["device", "threads", "runtime", "batch"]
COLUMNS = ["configuration", "label", "model", "dataset", "method", "weight_bits", "act_bits"]

NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "inductor": "TorchInductor",
    "torch_ao": "torch.ao",
}
NUMBERS = ["top1", "top1_sd", "top1_low", "top1_high", "drop", "drop_low", "drop_high", "n"]


def points(measured: pd.DataFrame, marked: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """COLUMNS with `panel`, LATENCY in milliseconds an image, `top1` of that runtime and precision, its 95 % interval,
    and the `drop` from float32 in the same runtime, image by image; without a row where nothing of the sweep was
    measured. Of several measurements the newest counts; of a configuration, its first run that was measured.

    Times are those on the clock, or of the processor where other processes had more than a tenth of it.
    """
    known = marked[["key", "configuration"]].drop_duplicates("key")
    found = measured.drop_duplicates(["key", "precision", *PANEL], keep="last").merge(known, on="key")
    found = found[found["correct"].notna()].drop_duplicates(["configuration", "precision", *PANEL])
    columns = [*COLUMNS, "panel", LATENCY, *NUMBERS]
    if not len(found):
        return pd.DataFrame(columns=columns)
    found = found.merge(summary[COLUMNS], on="configuration")
    rows = [row for _, group in found.groupby(PANEL, sort=False) for row in _panel(group)]
    return pd.DataFrame(rows, columns=columns)


def _panel(group: pd.DataFrame) -> list[dict[str, Any]]:
    records = group.to_dict("records")
    floats = {row["model"]: row["correct"] for row in records if row["precision"] == "float32"}
    shares = [row["processor_ms"] / row["median_ms"] / row["threads"] for row in records]
    quiet = pd.Series(shares).median() >= 0.9
    clock = "median_ms" if quiet else "processor_ms"
    first = records[0]
    threads = counted(first["threads"], "thread")
    name = NAMES.get(first["runtime"], first["runtime"])
    panel = f"{name}, batch {first['batch']}, {threads}" + (", processor time" * (not quiet))
    return [
        _row({str(name): row[name] for name in row}, floats, clock, f"{panel}, {first['device']}")
        for row in records
    ]


def _row(row: dict[str, Any], floats: dict[str, Any], clock: str, panel: str) -> dict[str, Any]:
    correct = row["correct"]
    top1 = 100 * float(correct.mean())
    low, high = of_share(top1, len(correct))
    found = {name: row[name] for name in COLUMNS}
    if row["precision"] == "bfloat16":
        found["label"] = f"{row['label']}, bfloat16"
        found["configuration"] = f"{row['configuration']}, bfloat16"
    found |= {"panel": panel, LATENCY: row[clock] / row["batch"], "n": 1, "top1_sd": math.nan}
    found |= {"top1": top1, "top1_low": low, "top1_high": high}
    change = paired(floats.get(row["model"]), correct)
    drop = {"drop": -change["difference"], "drop_low": -change["high"], "drop_high": -change["low"]}
    if row["precision"] == "float32":
        drop = {"drop": 0.0, "drop_low": math.nan, "drop_high": math.nan}
    return found | drop
