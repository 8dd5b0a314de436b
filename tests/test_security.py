"""What somebody else wrote runs no code and writes nowhere but in its run directory."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import journals
from fakes.journals import Embedded, difference, write_run
from fakes.statuses import status_of

from suite.cli.main import main
from suite.export import file_check
from suite.networks import checkpoint_files
from suite.recipe import FORMAT, Network, plan
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.record.files import Folders, sha256, write_json
from suite.record.journal import Journal, examine_events, read_events
from suite.run import checkpoint
from suite.run.float_stage import load_float
from suite.sweeps import stored
from suite.track import run_contents, sync

STAGE = journals.stages(2)[1]


class Hostile:
    """Unpickled, it makes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def record(runs: Path, **changes: Any) -> None:
    """A sweep's record of one stage, with that row changed."""
    (runs / "sweeps").mkdir(parents=True, exist_ok=True)
    needs = [needed.key for needed in STAGE.needs]
    row = {"key": STAGE.key, "name": STAGE.name, "needs": needs, "stage": to_json(STAGE), **changes}
    content = {"format": FORMAT, "sweep": "evil", "options": {}, "stages": [row]}
    (runs / "sweeps" / "evil.json").write_text(json.dumps(content))


def files(folder: Path) -> set[Path]:
    return {file.relative_to(folder) for file in folder.rglob("*")}


ROWS: dict[str, dict[str, Any]] = {
    "a class of Python's": {"stage": {"type": "os.system", "command": "id"}},
    "a class of the suite that is no value": {"stage": {"type": "events.Journal", "folder": "/"}},
    "a class by its whole name": {"stage": {"type": "suite.record.files.Folders", "runs": "/", "data": "/"}},
    "a key that leaves the folder": {"key": "../../etc"},
    "a key of another stage": {"key": "0" * 16},
    "a field that no stage has": {"stage": {**to_json(STAGE), "__class__": "os"}},
    "a value for a stage": {"stage": to_json(Network())},
    "a network that is text": {"stage": {**to_json(STAGE), "start": "../../etc/passwd"}},
    "a method that is none": {"stage": {**to_json(STAGE), "method": None}},
    "a row that is none": {"stage": 7},
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_hostile_record_of_a_stage_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    record(tmp_path, **ROWS[kind])
    before = files(tmp_path)
    with pytest.raises(SuiteError):
        stored.load_sweep(tmp_path, "evil", checked=True)
    if kind != "a key of another stage":  # which nothing runs: `run` and `resume` compute it
        with pytest.raises(SuiteError):
            stored.load_sweep(tmp_path, "evil")
    with pytest.raises(SuiteError):
        stored.find_stages(tmp_path, [str(ROWS[kind].get("key", STAGE.key))])
    assert files(tmp_path) == before
    record(tmp_path)
    assert stored.load_sweep(tmp_path, "evil") == (STAGE,)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "..", ".hidden", "a\nb", ""])
def test_no_sweep_has_a_name_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(SuiteError, match="is unusable"):
        stored.save_sweep(tmp_path / "runs", name, {}, plan([STAGE]))
    assert files(tmp_path) == set()


def test_nothing_that_was_recorded_commands_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names and errors may hold escape sequences, which rename a window, hide lines or answer for the user."""
    command = "\x1b]0;pwned\x07\x1b[2J\x9b31m"
    record(tmp_path, name=f"amax {command}")
    write_run(tmp_path, STAGE)
    (tmp_path / STAGE.key / "outcome.json").unlink()
    Journal(tmp_path / STAGE.key).write("failed", error=f"no {command} disk", cause="code", traceback="")
    for words in (["status", "evil"], ["logs", "evil", "--errors"], ["status", f"x{command}"]):
        main([*words, "--runs", str(tmp_path)])
    said = "".join(capsys.readouterr())
    assert "amax ?]0;pwned" in said and "disk" in said and not {"\x1b", "\x07", "\x9b"} & set(said)


LINES = [
    "[" * 100_000,
    "9" * 10_000,
    "null",
    "[]",
    '"text"',
    '{"seq": "__import__(1)", "time": 1, "attempt": 1, "event": "metrics", "step": 1, "values": {"top1": 1}}',
    '{"seq": 900, "time": "1", "attempt": 1, "event": "metrics", "step": 1, "values": {"top1": 1}}',
    '{"seq": 901, "time": NaN, "attempt": 1, "event": "finished"}',
    '{"seq": 902, "time": 1e999, "attempt": 1, "event": "finished"}',
    '{"seq": 903, "time": 1, "attempt": 1e9, "event": "started"}',
    '{"seq": 904, "time": 1, "attempt": [1], "event": "started"}',
    '{"seq": 905, "time": 1, "attempt": 1, "event": {"a": 1}}',
    '{"seq": 906, "time": 1, "attempt": 1, "event": "metrics", "step": "1; drop table", "values": {"top1": 1}}',
    '{"seq": 907, "time": 1, "attempt": 1, "event": "metrics", "step": 1, "values": {"../../x": 1}}',
    '{"seq": 908, "time": 1, "attempt": 1, "event": "metrics", "step": 1, "values": {"top1": "1"}}',
    '{"seq": 909, "time": 1, "attempt": 1, "event": "metrics", "step": 1, "values": [1]}',
    '{"seq": 910, "time": 1, "attempt": 1, "event": "metrics", "step": 1, "values": {"top1": 1e999}}',
    '{"seq": 911, "time": 1, "attempt": 1, "event": "metrics", "step": 1, "values": {"top1": '
    + "9" * 400
    + "}}",
]


@pytest.mark.parametrize("seals", [True, False], ids=["with its checksum", "of an older version"])
@pytest.mark.parametrize("number", range(len(LINES)))
def test_a_hostile_line_in_a_journal_changes_nothing_and_holds_up_no_other_run(
    number: int, seals: bool, tmp_path: Path
) -> None:
    write_run(tmp_path, STAGE)
    file, line = tmp_path / STAGE.key / "events.jsonl", LINES[number]
    if seals:
        line = f'{line[:-1]}, "crc32": "{zlib.crc32(line[:-1].encode()):08x}"}}'
    else:
        journals.unsealed(file)
    before = read_events(file.parent)
    first, _, rest = file.read_text().partition("\n")
    file.write_text(f"{first}\n{line}\n{rest}")
    assert examine_events(file.parent) == (before, 1)
    assert len(before) == 2 + 2 * journals.EPOCHS + 2


def test_a_hostile_journal_reaches_mlflow_as_text_and_writes_nowhere_else(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs, report = tmp_path / "runs", tmp_path / "results"
    write_run(runs, STAGE)
    (runs / "mlflow.db").write_bytes(database)
    journal = Journal(runs / STAGE.key)
    journal.write(
        "started", host="../../../etc", device={"a": [1]}, commit="'; drop table runs; --", job=None
    )
    journal.write("data", split="../../x", sha256="../" * 30_000, images=["many"])
    journal.write("data")
    journal.write("failed", error="<script>alert(1)</script>" * 9000, cause="../..", traceback=7)
    outcome = {"format": FORMAT, "top1": "high", "loss": [], "checkpoint": "/etc/passwd"}
    write_json(outcome, runs / STAGE.key / "outcome.json")
    report.mkdir()
    (report / "table.md").symlink_to("/etc/hostname")
    before = files(tmp_path)
    sync.sync("demo", [STAGE], runs, report)
    fresh = {str(file) for file in files(tmp_path) - before if "mlflow-artifacts" not in file.parts}
    assert fresh <= {
        f"runs/{name}" for name in ("mlflow.lock", "mlflow.db-wal", "mlflow.db-shm", "sweeps")
    } | {"runs/sweeps/demo.mlflow"}, "nothing is written anywhere else"
    assert [file.name for file in runs.glob("mlflow-artifacts/**/*.*")] == ["curve.csv"], (
        "and no link is followed"
    )
    assert difference(Embedded(runs), "demo", runs, [STAGE]) == (journals.EPOCHS * 7, 0, 0)


PLACES = {
    **dict.fromkeys(
        ("../../secret", "artifacts/../../../secret", "artifacts", "", "x" * 9000), "not in the folder"
    ),
    **dict.fromkeys(
        ("/etc/hostname", "events.jsonl", "artifacts/.hidden", "['a']", "None"), "not in the folder"
    ),
    **dict.fromkeys(("artifacts/link", "artifacts/pipe", "artifacts/none", "artifacts/folder"), "not there"),
    "artifacts/large": "5.0 MiB, more than 5",
    "artifacts/curve.csv": "not the file that was recorded",
}


@pytest.mark.parametrize("place", PLACES)
def test_an_artifact_that_is_elsewhere_or_large_or_another_is_left_out_with_the_reason(
    tmp_path: Path, place: str
) -> None:
    write_run(tmp_path / "runs", STAGE)
    (tmp_path / "secret").write_text("secret")
    inside = tmp_path / "runs" / STAGE.key / "artifacts"
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "large").write_bytes(b"0" * (run_contents.LARGEST + 1))
    (inside / "folder").mkdir()
    os.mkfifo(inside / "pipe")
    journal = Journal(inside.parent)
    journal.write("artifact", file=place, bytes="6", sha256=sha256(tmp_path / "secret"))
    name = place.rpartition("/")[2][:100]
    reason = run_contents.artifacts(status_of(STAGE, tmp_path / "runs"))[name][1]
    assert isinstance(reason, str) and reason.startswith(PLACES[place])


def test_an_artifact_in_a_folder_that_is_a_link_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", STAGE)
    inside = tmp_path / "runs" / STAGE.key / "artifacts"
    inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(tmp_path / "elsewhere")
    found = run_contents.artifacts(status_of(STAGE, tmp_path / "runs"))
    assert [content for _, content in found.values()] == ["not there"]


def test_no_checkpoint_runs_code_whatever_record_names_it(tmp_path: Path) -> None:
    """As a state to resume from, as the network a recipe starts from, and as somebody's weights."""
    proof, recipe = tmp_path / "proof", journals.stages(2)[1]
    start = recipe.needs[0]
    folder = tmp_path / "runs" / start.key
    folder.mkdir(parents=True)
    file = folder / "checkpoint.pt"
    for evil in ({"model": Hostile(proof)}, Hostile(proof)):
        torch.save(evil, file)
        digest = sha256(file)
        resume = folder / f"resume-0000000001-{digest[:16]}.pt"
        resume.write_bytes(file.read_bytes())
        saved = {"file": "checkpoint.pt", "sha256": digest}
        write_json({"format": FORMAT, "checkpoint": saved}, folder / "outcome.json")
        for read in (
            lambda: load_float(start, Folders(tmp_path / "runs", tmp_path)),  # type: ignore[arg-type]
            lambda: checkpoint.load_resumable(folder),
        ):
            with pytest.raises(SuiteError, match="holds something else than tensors") as refused:
                read()
            assert "weights_only" not in str(refused.value), "torch's advice is to switch safety off"
        with pytest.raises(SuiteError):
            checkpoint_files.load_weights(Network(), file)
        resume.unlink()
    assert not proof.exists()
    torch.load(file, weights_only=False)
    assert proof.is_dir(), "the file was hostile indeed"


def test_a_checkpoint_outside_its_run_directory_is_not_read(tmp_path: Path) -> None:
    start = journals.stages(1)[0]
    folder = tmp_path / "runs" / start.key
    folder.mkdir(parents=True)
    torch.save({"model": {}}, tmp_path / "outside.pt")
    saved = {"file": "../../outside.pt", "sha256": sha256(tmp_path / "outside.pt")}
    write_json({"format": FORMAT, "checkpoint": saved}, folder / "outcome.json")
    with pytest.raises(SuiteError, match=rf"checkpoint {folder}/outside.pt is missing"):
        load_float(start, Folders(tmp_path / "runs", tmp_path))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["an initializer", "a node", "a branch"])
def test_an_onnx_file_that_names_other_files_for_its_weights_is_refused(tmp_path: Path, place: str) -> None:
    """They would be read from wherever it says."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    weight = onnx.TensorProto(name="w", data_type=kind.FLOAT, dims=[1], data_location=kind.EXTERNAL)
    weight.external_data.add(key="location", value="/etc/hostname")
    nodes = [helper.make_node("Identity", ["images"], ["logits"])]
    if place != "an initializer":
        nodes.append(helper.make_node("Constant", [], ["c"], value=weight))
    if place == "a branch":
        branch = helper.make_graph(nodes[1:], "b", [], [helper.make_tensor_value_info("c", kind.FLOAT, [1])])
        nodes[1] = helper.make_node("If", ["flag"], ["c"], then_branch=branch, else_branch=branch)
    ends = [helper.make_tensor_value_info(name, kind.FLOAT, [1]) for name in ("images", "logits")]
    weights = [weight] if place == "an initializer" else []
    made = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights))
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(SuiteError, match="it names other files for its weights, which are not read"):
        file_check.read(tmp_path / "m.onnx")
