"""The architecture: imports point down, workers stay lean, the analysis shares the run format and no other code."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from suite.launch import launcher
from suite.launch.launcher import LAUNCHERS, Launcher
from suite.record.files import Folders

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"recipe"},
    {"ranks", "stop", "networks"},
    {"record", "arithmetic"},
    {"data", "ranges"},
    {"quantizers", "pytorch_quantization"},
    {"learned", "reconstruction", "sensitivity"},
    {"train"},
    {"steps"},
    {"methods"},
    {"run", "sweeps"},
    {"integers"},
    {"formats"},
    {"export"},
    {"measure", "launch", "track"},
    {"cli"},
]
"""The packages and the two modules of the suite, from the lowest up: each imports those of lower layers alone."""

CODE = ("suite", "slurm", "analysis", "benchmarks")
FILE_LINES, FUNCTION_LINES = 300, 50


def code() -> list[Path]:
    """Every Python file but those of the tests."""
    return sorted(file for folder in CODE for file in (ROOT / folder).rglob("*.py"))


def name_of(file: Path) -> str:
    """As it is imported."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(module: str) -> int:
    package = module.split(".")[1]
    layers = [number for number, packages in enumerate(LAYERS) if package in packages]
    assert layers, f"{module} is in no layer; give it one in {Path(__file__).name}"
    return layers[0]


def test_imports_point_down() -> None:
    checked = 0
    for file in sorted((ROOT / "suite").rglob("*.py")):
        module = name_of(file)
        if module in ("suite", "suite.__main__"):
            continue
        for used in imports(file):
            parts = used.split(".")
            if parts[0] != "suite" or len(parts) < 2:
                continue
            if parts[1] == module.split(".")[1]:
                continue  # within one folder
            assert layer_of(used) < layer_of(module), f"{module} imports {used}"
            checked += 1
    assert checked > 60


def test_no_import_goes_in_a_circle() -> None:
    modules = {name_of(file): file for file in code()}
    used = {name: imports(file) & modules.keys() - {name} for name, file in modules.items()}
    assert (
        len(list(TopologicalSorter(used).static_order())) == len(modules) > 100
    )  # a circle raises CycleError


def test_only_tracking_imports_mlflow_and_only_the_command_line_knows_tracking() -> None:
    users = {"mlflow": set[str](), "suite.track": set[str]()}
    for file in (ROOT / "suite").rglob("*.py"):
        for used in imports(file):
            for name, found in users.items():
                if used == name or used.startswith(f"{name}."):
                    found.add(file.parent.name)
    assert users == {"mlflow": {"track"}, "suite.track": {"track", "cli"}}


def test_slurm_stands_on_the_suite_and_the_suite_loads_it_by_its_name_in_a_table() -> None:
    for file in (ROOT / "suite").rglob("*.py"):
        assert "slurm" not in {used.split(".")[0] for used in imports(file)}, file
    assert "suite.launch.grouping" in imports(ROOT / "slurm" / "sender.py")
    assert not imports(ROOT / "slurm" / "worker.py") & {"submitit", "mlflow"}, "a worker needs neither"


def test_methods_see_no_ranks_files_mlflow_or_slurm_and_train_sees_no_methods() -> None:
    for file in (ROOT / "suite" / "methods").glob("*.py"):
        forbidden = (
            "suite.ranks",
            "suite.stop",
            "suite.record",
            "suite.run",
            "mlflow",
            "submitit",
            "pathlib",
        )
        assert not [used for used in imports(file) if used.startswith(forbidden)], file
    for file in (ROOT / "suite" / "train").glob("*.py"):
        assert not [used for used in imports(file) if used.startswith("suite.methods")], file


def test_the_analysis_imports_nothing_of_the_suite_but_its_record_and_no_torch() -> None:
    for file in (ROOT / "analysis").rglob("*.py"):
        used = {
            name
            for name in imports(file)
            if name.split(".")[0] in ("suite", "slurm", "torch", "mlflow", "submitit")
        }
        used = {name.split(".")[0] for name in used if not name.startswith("suite.record")}
        # Inside the function that reads it; another test sees that importing the analysis does not.
        assert used == ({"mlflow"} if file.stem == "mlflow" else set()), file


@pytest.mark.parametrize(
    ("module", "lean_of"),
    [
        ("suite.recipe", ["torch", "numpy", "mlflow", "rich"]),
        (
            "analysis.read.run_folders, analysis.read.layer_records, analysis.__main__",
            ["torch", "torchvision", "mlflow", "submitit", "suite.methods", "suite.run", "suite.ranks"],
        ),
        ("slurm.launcher, suite.launch.local", ["torch", "numpy", "mlflow", "submitit"]),
        ("suite.run.stage", ["mlflow", "submitit", "rich", "pandas", "matplotlib", "torchvision"]),
        (
            "suite.cli.main, suite.cli.launching, suite.cli.following",
            ["torch", "numpy", "mlflow", "submitit", "pandas", "matplotlib", "torchvision", "sklearn"],
        ),
    ],
)
def test_importing_is_lean(module: str, lean_of: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {lean_of} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_record_needs_nothing_but_the_standard_library() -> None:
    """Every module of suite.record is imported; what it imports inside functions, such as psutil, is not asked."""
    modules = ", ".join(f"suite.record.{file.stem}" for file in (ROOT / "suite" / "record").glob("*.py"))
    code = f"import sys; before = set(sys.modules); import {modules.replace('suite.record.__init__, ', '')}; "
    code += "print({name.split('.')[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names - {'suite'})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_worker_runs_where_mlflow_and_submitit_are_not_installed(tmp_path: Path) -> None:
    """A GPU node need not have them: `run` works with both made impossible to import."""
    blocked = tmp_path / "blocked"
    for name in ("mlflow", "submitit", "pandas", "matplotlib"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('a worker imported {name}')")
    code = f"""
import sys
sys.path[:0] = [{str(blocked)!r}, {str(ROOT)!r}]
from pathlib import Path
from suite.__main__ import main
from suite.methods.amax import Amax
from suite.recipe import *
from suite.sweeps.stored import save_sweep
sgd = Sgd(epochs=1, batch=256, lr=0.05, precision=Precision("O0"))
recipe = Recipe(Training(Network(), Dataset("digits", size=8), sgd), Amax())
save_sweep(Path("runs"), "one", {{}}, plan([recipe]))
sys.exit(main(["run", recipe.start.key, recipe.key, "--runs", "runs"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("done ") == 2


def test_no_test_imports_a_test_and_each_stands_in_the_folder_of_what_it_tests() -> None:
    folders = {file.name for folder in ("suite", ".") for file in (ROOT / folder).iterdir() if file.is_dir()}
    for file in (ROOT / "tests").rglob("*.py"):
        assert not [used for used in imports(file) if used.split(".")[-1].startswith("test_")], file
        assert file.parent.name in folders | {"fakes"}, file


def test_no_file_has_more_than_300_lines_and_no_function_more_than_50() -> None:
    long: list[str] = []
    for file in [*code(), *(ROOT / "tests").rglob("*.py")]:
        text, place = file.read_text(), str(file.relative_to(ROOT))
        long += [f"{place}: {lines} lines" for lines in [len(text.splitlines())] if lines > FILE_LINES]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{place}:{node.name}: {lines} lines"] * (lines > FUNCTION_LINES)
    assert not long, "\n".join(["too long:", *long])


def test_the_examples_in_docstrings_are_right() -> None:
    """Those of the suite; tests/analysis/test_output.py has those of the analysis."""
    files = [
        file for file in code() if file.relative_to(ROOT).parts[0] != "analysis" and ">>>" in file.read_text()
    ]
    done = [doctest.testmod(importlib.import_module(name_of(file))) for file in files]
    assert sum(one.failed for one in done) == 0 and sum(one.attempted for one in done) > 10


def test_what_begins_with_an_underscore_is_used_in_its_own_file_alone() -> None:
    for file in code():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in CODE:
                assert not [alias.name for alias in node.names if alias.name.startswith("_")], file


def test_no_files_name_says_nothing() -> None:
    names = {file.stem for file in code()}
    assert len(names) > 100 and not names & {"utils", "common", "helpers", "base", "manager"}


IMPORTED_AS = {"pillow": "PIL", "nvidia-ml-py": "pynvml"}
NOT_IMPORTED = {"pyarrow", "scikit-learn", "submitit"}
"""pandas imports pyarrow for Parquet; of scikit-learn the file of the digits is read; a benchmark compares launching
with submitit's."""


def test_every_package_that_a_run_is_installed_with_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    files = [file for file in code() if file.relative_to(ROOT).parts[0] != "benchmarks"]
    used = {name.partition(".")[0] for file in files for name in imports(file)}
    assert {IMPORTED_AS.get(name, name) for name in listed - NOT_IMPORTED} <= used


def test_an_installation_has_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {file.parent for top in ("suite", "slurm", "analysis") for file in (ROOT / top).rglob("*.py")}
    assert sorted(listed) == sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)


NVIDIAS = ("pytorch_quantization/calib", "pytorch_quantization/nn", "pytorch_quantization/nn/modules")
"""The packages within a package: their names are NVIDIA's, which code that is written for it imports."""


def test_there_are_few_packages_and_each_says_what_it_is() -> None:
    for folder, most in (("suite", 23), ("analysis", 5)):
        made = sorted((ROOT / folder).glob("*/__init__.py"))
        assert 0 < len(made) <= most, [file.parent.name for file in made]
        within = [ROOT / folder / name / "__init__.py" for name in NVIDIAS if folder == "suite"]
        packages = sorted((ROOT / folder).rglob("__init__.py"))
        assert packages == sorted([ROOT / folder / "__init__.py", *made, *within])
        for file in made + within:
            assert ast.get_docstring(ast.parse(file.read_text())), f"{file} has no docstring"


def test_the_command_line_knows_no_launcher_by_its_name() -> None:
    """A launcher is a class and a line of a table: what differs between them stands in the class."""
    for file in (ROOT / "suite" / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.Compare, ast.MatchValue)):
                words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not words & set(LAUNCHERS), f"{file}, line {node.lineno}"


def test_every_launcher_of_the_table_has_the_verbs_and_the_name_of_its_line(tmp_path: Path) -> None:
    verbs = {name for name in vars(Launcher) if not name.startswith("_")} | {"name", "takes"}
    assert {"check", "preview", "submit", "watch", "status", "cancel", "logs"} < verbs
    for name in LAUNCHERS:
        made = launcher.made(name, Folders(tmp_path, tmp_path))
        assert made.name == name and all(hasattr(made, verb) for verb in verbs)
    assert not list(tmp_path.iterdir()), "to make one writes nothing"
