"""The front of top-1 against the latency of exported networks."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.figures import texts
from fakes.sweeps import small

from analysis.compare import pareto
from analysis.page import accuracy_sections
from analysis.page.parts import Picture
from analysis.report import results


def record(runs: Path, name: str, *rows: dict[str, Any], **changed: Any) -> None:
    """What `suite latency` leaves."""
    content = {"format": 1, "device": "Xeon", "threads": 1, "rows": rows} | changed
    (runs / "latency").mkdir(exist_ok=True)
    (runs / "latency" / f"{name}.json").write_text(json.dumps(content))


def row(key: str, precision: str, ms: float, right: int, **changed: Any) -> dict[str, Any]:
    bits = np.packbits(np.arange(100) < right).tobytes()
    found = {"key": key, "runtime": "onnxruntime", "precision": precision, "batch": 128, "images": 100}
    found |= {"median_ms": 128 * ms, "processor_ms": 128 * ms, "correct": base64.b64encode(bits).decode()}
    return found | changed


def test_top1_of_each_runtime_stands_against_its_latency_and_the_newest_record_counts(tmp_path: Path) -> None:
    stages = small(tmp_path)
    start = stages[0]["key"]
    finished = next(one["key"] for one in stages if one["params"]["method"] == "k_sigma")
    record(tmp_path, "1", row(start, "float32", 9.0, 90), row(finished, "int8", 1.0, 88))
    record(tmp_path, "2", row(finished, "int8", 2.0, 80), row(start, "bfloat16", 5.0, 89))
    record(tmp_path, "3", row("0" * 16, "int8", 2.0, 80), {"key": 1}, row(finished, "int8", -1.0, 80))
    record(tmp_path, "4", row(finished, "int8", 0.1, 80), format=2)
    (tmp_path / "latency" / "5.json").write_text("{")
    found = results.load(tmp_path, "small")
    table = found.latency.set_index("label")
    assert table[pareto.LATENCY].to_dict() == {"float": 9.0, "k_sigma": 2.0, "float, bfloat16": 5.0}
    assert table["drop"].to_dict() == pytest.approx({"float": 0, "k_sigma": 10, "float, bfloat16": 1})
    assert set(table["panel"]) == {"ONNX Runtime, batch 128, 1 thread, Xeon"}
    assert table.loc["k_sigma", "drop_low"] < 10 < table.loc["k_sigma", "drop_high"]
    pictures = [part for part in accuracy_sections.against_cost(found).parts if isinstance(part, Picture)]
    assert [part.name for part in pictures] == ["size", "latency"]
    shown = [text.get_text() for text in texts(pictures[1].figure)]
    assert "latency of the exported network (ms an image)" in shown
    assert any(text.startswith("k_sigma w9") for text in shown)


def test_processor_time_counts_where_other_processes_had_the_cores(tmp_path: Path) -> None:
    start = small(tmp_path)[0]["key"]
    record(tmp_path, "1", row(start, "float32", 9.0, 90, processor_ms=128 * 3.0))
    table = results.load(tmp_path, "small").latency
    assert table[pareto.LATENCY].tolist() == [3.0]
    assert table["panel"].tolist() == ["ONNX Runtime, batch 128, 1 thread, processor time, Xeon"]
