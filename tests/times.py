"""Writes tests/times.md: how long the tests of each file took in the last `make test`.

python tests/times.py .venv/times.xml > tests/times.md
"""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

SLOWEST = 25
"""How many single tests are listed."""


def table(report: Path) -> str:
    """Markdown from a JUnit report of pytest: a row a file, the slowest first, and the slowest single tests."""
    suite = ElementTree.parse(report).getroot()[0]
    seconds, count = Counter[str](), Counter[str]()
    single: list[tuple[float, str]] = []
    for case in suite.iter("testcase"):
        file = case.attrib["classname"].replace(".", "/") + ".py"
        took = float(case.attrib["time"])
        seconds[file] += took
        count[file] += 1
        single.append((took, f"{file.removeprefix('tests/')}::{case.attrib['name']}"))
    lines = [
        "# How long the tests take",
        "",
        f"{sum(count.values()):,} tests in {float(suite.attrib['time']):,.0f} s on the clock with three workers on "
        f"{os.cpu_count()} cores ({_cpu()}, Python {platform.python_version()}), {suite.attrib['timestamp'][:10]}, "
        "n = 1; "
        "seconds of each file are those of its tests, one after the other. Made by `make times`.",
        "",
        "| file | tests | seconds |",
        "| --- | ---: | ---: |",
        *(f"| {file} | {count[file]} | {took:.1f} |" for file, took in seconds.most_common()),
        "",
        "| the slowest tests | seconds |",
        "| --- | ---: |",
        *(
            f"| {name.replace('|', chr(92) + '|')} | {took:.1f} |"
            for took, name in sorted(single, reverse=True)[:SLOWEST]
        ),
    ]
    return "\n".join(lines) + "\n"


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.stdout.write(table(Path(sys.argv[1])))
