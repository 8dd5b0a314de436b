"""One stage leaves one directory: whole or not done."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes.statuses import status_of

from suite import networks
from suite.methods.amax import Amax
from suite.methods.entropy import Entropy
from suite.methods.mse import Mse
from suite.methods.qat_symmetric import QatSymmetric
from suite.networks import checkpoint_files
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Network, Pretrained, Recipe, Training
from suite.recipe.errors import SuiteError
from suite.record import files
from suite.record.journal import read_events, read_outcome
from suite.run.float_stage import load_float, observed
from suite.run.stage import Folders, run
from suite.train.bfloat16 import kernels


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Folders]:
    """A training on the digits, really run."""
    from suite.recipe import Precision, Sgd

    sgd = Sgd(epochs=2, batch=128, lr=0.05, flip=False, pad=1, precision=Precision("O0"))
    stage = Training(Network("resnet20"), Dataset("digits", size=8), sgd)
    folders = Folders(tmp_path_factory.mktemp("runs"), Path("unused"))
    run(stage, Ranks(), folders)
    return stage, folders


def test_a_run_leaves_its_stage_its_journal_its_checkpoint_and_its_outcome(
    finished: tuple[Training, Folders],
) -> None:
    stage, folders = finished
    folder = folders.runs / stage.key
    record = json.loads((folder / "stage.json").read_text())
    assert record["params"] == stage.params
    assert {"format", "key", "name", "kind", "stage", "commit", "dirty", "diff", "versions", "device"} <= set(
        record
    )
    journal = read_events(folder)
    assert record["bfloat16"] == journal[0]["bfloat16"] == kernels(torch.device("cpu"))
    assert [event["event"] for event in journal] == [
        "started",
        "data",
        "metrics",
        "data",
        "metrics",
        "metrics",
        "metrics",
        "artifact",
        "finished",
    ]
    assert [event["seq"] for event in journal] == list(range(1, 10))
    assert [event["step"] for event in journal if "step" in event] == [1, 1, 2, 2]
    known = [(event["split"], event["images"]) for event in journal if event["event"] == "data"]
    assert known == [("train", 1198), ("test", 599)]
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome["images"] == 599 and 0 <= outcome["top1"] <= 100 and outcome["model_size_mb"] > 1
    assert outcome["checkpoint"]["sha256"] == files.sha256(folder / "checkpoint.pt")
    assert not list(folder.glob("*writing*"))


def test_a_training_is_evaluated_as_often_as_it_says_and_at_its_end(
    finished: tuple[Training, Folders],
) -> None:
    training, folders = finished
    rare = replace(training, sgd=replace(training.sgd, epochs=3, evaluate_every=2))
    run(rare, Ranks(), folders)
    metrics = [event for event in read_events(folders.runs / rare.key) if event["event"] == "metrics"]
    assert [event["step"] for event in metrics if "top1" in event["values"]] == [2, 3]
    assert replace(training, sgd=replace(training.sgd, evaluate_every=1)).key == training.key


def test_a_finished_run_is_not_repeated(finished: tuple[Training, Folders]) -> None:
    stage, folders = finished
    before = (folders.runs / stage.key / "events.jsonl").read_bytes()
    run(stage, Ranks(), folders)
    assert (folders.runs / stage.key / "events.jsonl").read_bytes() == before


def test_a_recipe_starts_from_what_its_training_left(finished: tuple[Training, Folders]) -> None:
    stage, folders = finished
    recipe = Recipe(stage, Amax(8, 8))
    run(recipe, Ranks(), folders)
    outcome, trained = status_of(recipe, folders.runs).outcome, status_of(stage, folders.runs).outcome
    assert outcome is not None and trained is not None
    assert abs(outcome["top1"] - trained["top1"]) < 2
    assert outcome["model_size_mb"] < trained["model_size_mb"] / 3


def test_recipes_of_one_training_share_what_its_layers_see(
    finished: tuple[Training, Folders], tmp_path: Path
) -> None:
    stage, folders = finished
    calibration = Calibration(images=200, batch=100)
    recipes = [Recipe(stage, kind(4, 4, feed=calibration)) for kind in (Mse, Entropy)]
    recipes.append(Recipe(stage, Mse(3, 3, feed=replace(calibration, batch=64))))

    def shared(folders: Folders) -> list[bool]:
        for recipe in recipes:
            run(recipe, Ranks(), folders)
        recorded = [read_events(folders.runs / recipe.key) for recipe in recipes]
        return [event["shared"] for journal in recorded for event in journal if event["event"] == "observed"]

    def correct(folders: Folders) -> list[str]:
        return [str((read_outcome(folders.runs / recipe.key) or {})["correct"]) for recipe in recipes]

    assert shared(folders) == [False, True, True]
    [file] = (folders.runs / stage.key).glob("observed-*.pt")
    assert file.stat().st_size < 2e6
    alone = Folders(tmp_path, folders.data)
    shutil.copytree(folders.runs / stage.key, tmp_path / stage.key)
    torn = tmp_path / stage.key / file.name
    torn.write_bytes(torn.read_bytes()[:-1])
    assert shared(alone) == [False, True, True], "a torn one is observed anew"
    assert correct(alone) == correct(folders)

    network, batches = load_float(stage, folders), [torch.rand(8, 3, 8, 8)]
    before, _ = observed(network, batches, calibration, "data", tmp_path)
    with torch.no_grad():
        network.get_parameter("conv1.weight").mul_(2)
    for digest in ("data", "other data"):
        after, was_there = observed(network, batches, calibration, digest, tmp_path)
        assert not was_there and not torch.equal(after.high, before.high), "a network that was trained anew"


def test_quantization_aware_training_records_its_epochs_and_its_checkpoint(
    finished: tuple[Training, Folders],
) -> None:
    stage, folders = finished
    recipe = Recipe(stage, QatSymmetric(feed=stage.sgd))
    run(recipe, Ranks(), folders)
    folder = folders.runs / recipe.key
    top1 = [e["step"] for e in read_events(folder) if "top1" in e.get("values", {})]
    assert top1 == [1, 2]
    assert (folder / "checkpoint.pt").is_file()


def test_training_from_scratch_begins_with_the_weights_that_the_float_training_began_with(
    finished: tuple[Training, Folders],
) -> None:
    stage, folders = finished
    still = replace(stage.sgd, epochs=1, lr=1e-30, weight_decay=0.0)  # so that its first weights are its last
    recipe = Recipe(stage, QatSymmetric(16, 16, from_scratch=True, feed=still))
    run(recipe, Ranks(), folders)
    torch.manual_seed(stage.seed)
    begun, trained = networks.build(stage.network), load_float(stage, folders)
    left = torch.load(folders.runs / recipe.key / "checkpoint.pt", weights_only=True)["model"]
    (name,) = [name for name in left if name.startswith("conv1") and name.endswith("weight")]
    torch.testing.assert_close(left[name], begun.state_dict()["conv1.weight"], rtol=0, atol=1e-4)
    assert (left[name] - trained.state_dict()["conv1.weight"]).abs().max() > 0.01


def test_a_recipe_whose_training_is_not_done_fails_and_says_so(
    tiny_training: Training, tmp_path: Path
) -> None:
    recipe = Recipe(tiny_training, Amax())
    with pytest.raises(SuiteError, match="is not done yet; run it first"):
        run(recipe, Ranks(), Folders(tmp_path, tmp_path))
    now = status_of(recipe, tmp_path)
    assert now.state == "failed" and "not done yet" in now.error
    assert "Traceback" in now.journal[-1]["traceback"]


def test_a_changed_checkpoint_is_refused(finished: tuple[Training, Folders], tmp_path: Path) -> None:
    stage, folders = finished
    folder = tmp_path / stage.key
    folder.mkdir()
    for name in ("checkpoint.pt", "outcome.json"):
        (folder / name).write_bytes((folders.runs / stage.key / name).read_bytes())
    content = bytearray((folder / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "checkpoint.pt").write_bytes(content)
    with pytest.raises(SuiteError, match="it was changed or damaged"):
        load_float(stage, Folders(tmp_path, tmp_path))
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(SuiteError, match="is missing; remove its run directory"):
        load_float(stage, Folders(tmp_path, tmp_path))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
def test_a_checkpoint_is_read_in_the_forms_people_publish(
    prefix: str, nested: str | None, tmp_path: Path
) -> None:
    network = Network("resnet20", "A")
    state = {prefix + name: value for name, value in networks.build(network).state_dict().items()}
    torch.save({nested: state, "best_prec1": 91.7} if nested else state, tmp_path / "w.pt")
    loaded = checkpoint_files.load_weights(network, tmp_path / "w.pt").state_dict()
    assert all(torch.equal(loaded[name.removeprefix("module.")], value) for name, value in state.items())


def test_a_checkpoint_of_another_architecture_says_what_does_not_fit(tmp_path: Path) -> None:
    torch.save(networks.build(Network("resnet20", "A")).state_dict(), tmp_path / "w.pt")
    for network, reason in (
        (Network("resnet32", "A"), r"60 tensors missing \(first: layer1.3.bn1.bias\)"),
        (Network("resnet20", "B"), r"tensors missing \(first: layer2.0.shortcut"),
        (Network("resnet20", "A", 100), r"linear.bias has shape \[10\], not \[100\]"),
    ):
        with pytest.raises(SuiteError, match=f"is not a {network.name}.*{reason}.*name its architecture"):
            checkpoint_files.load_weights(network, tmp_path / "w.pt")


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch /tmp/quantization-suite-was-here",)


def test_a_file_that_is_no_checkpoint_is_refused_and_never_executed(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "text.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    for name, reason in (
        ("text.pt", "not a checkpoint"),
        ("list.pt", "no state_dict"),
        ("evil.pt", "not a checkpoint"),
    ):
        with pytest.raises(SuiteError, match=reason):
            checkpoint_files.load_weights(Network(), tmp_path / name)
    assert not Path("/tmp/quantization-suite-was-here").exists()


def test_a_pretrained_stage_checks_its_file_again_when_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    torch.save(networks.build(Network()).state_dict(), file)
    stage = Pretrained(Network(), Dataset("digits"), str(file), files.sha256(file))
    assert load_float(stage, Folders(tmp_path, tmp_path)) is not None
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(SuiteError, match="is not the checkpoint of sha256"):
        load_float(stage, Folders(tmp_path, tmp_path))
