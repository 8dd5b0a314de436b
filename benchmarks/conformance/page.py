"""results/conformance/README.md: what was compared, where it differs, why, and the lines that show it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import benchmarks.conformance
from benchmarks.conformance import reproduce
from benchmarks.conformance.compare import Compared
from benchmarks.conformance.toolkits import TOOLKITS

QUANTITIES = ("grid", "scale", "zero point", "codes", "clipped share", "gradient")
KINDS = ("range rule", "narrow grid", "last bit", "tie rounding", "masks", "defect", "unexplained")
TRIES = 8
"""Of the pairs of a group, until one is found whose few values show the difference."""


@dataclass(frozen=True)
class Group:
    """Pairs of a toolkit that differ in the same quantity for the same reason."""

    toolkit: str
    of: str
    kind: str
    why: str
    pairs: int
    settings: tuple[str, ...]
    tensors: tuple[str, ...]
    program: str
    output: str


def groups(found: Iterable[Compared]) -> list[Group]:
    """The pairs that differ, by reason, each with a reproducer; "" where none was found."""
    apart: dict[tuple[str, str, str, str], list[Compared]] = defaultdict(list)
    for pair in found:
        if pair.verdict.kind != "equal":
            apart[pair.toolkit, pair.of, pair.verdict.kind, pair.verdict.why].append(pair)
    return [_group(key, pairs) for key, pairs in sorted(apart.items(), key=_order)]


def _order(item: tuple[tuple[str, str, str, str], list[Compared]]) -> tuple[int, int, int]:
    (toolkit, of, _, _), pairs = item
    return list(TOOLKITS).index(toolkit), QUANTITIES.index(of), -len(pairs)


def _group(key: tuple[str, str, str, str], pairs: Sequence[Compared]) -> Group:
    smallest = sorted(pairs, key=lambda pair: 1 << 30 if pair.x is None else pair.x.numel())
    program, output = "", ""
    for pair in [pair for pair in smallest if pair.x is not None][:TRIES]:
        program = reproduce.lines(pair)
        output = reproduce.printed(program)
        if reproduce.differs(output, pair.toolkit):
            break
        program = ""
    settings = tuple(dict.fromkeys(pair.setting.name for pair in pairs))
    tensors = tuple(dict.fromkeys(pair.tensor for pair in pairs))
    return Group(*key, len(pairs), settings, tensors, program, output)


def page(
    found: Sequence[Compared],
    differences: Sequence[Group],
    versions: Mapping[str, str],
    skipped: Mapping[str, str],
    not_offered: Mapping[tuple[str, str], str],
    head: str,
) -> str:
    """The whole page, Markdown."""
    parts = [
        "# Conformance of toolkits",
        head,
        _about(),
        "## How many pairs are equal",
        _counts(found, versions),
    ]
    parts += ["## Why the others differ", _reasons(differences)]
    left = [f"- {name}: not compared. {why}" for name, why in skipped.items()]
    left += [f"- {name} has no {setting}: {why}." for (name, setting), why in not_offered.items()]
    if left:
        parts += ["## What was not compared", "\n".join(left)]
    shown = [_reproducer(number, group) for number, group in enumerate(differences, 1) if group.program]
    if shown:
        parts += [
            "## Reproducers",
            "Each is run from the root of the project, and prints what stands below it.",
            *shown,
        ]
    return "\n\n".join(parts) + "\n"


def _title(number: int, group: Group) -> str:
    return f"{number}. {group.toolkit}: {group.of}, {group.kind}"


def _reproducer(number: int, group: Group) -> str:
    code = f"```python\n{group.program}```\n\n```text\n{group.output}```"
    return f"### {_title(number, group)}\n\n{group.why[:1].upper()}{group.why[1:]}.\n\n{code}"


def _about() -> str:
    text = (benchmarks.conformance.__doc__ or "").split("\n\n")
    classes = [line.split(None, 2) for line in text[3].strip().splitlines()]
    rows = []
    for words in classes:
        length = 1 if words[0] in ("masks", "defect", "unexplained") else 2
        name = " ".join(words[:length])
        rows.append(f"| {name} | {' '.join(' '.join(words).split()[length:])} |")
    return "\n\n".join([text[1], text[2], "| class | what differs |\n| --- | --- |\n" + "\n".join(rows)])


def _counts(found: Sequence[Compared], versions: Mapping[str, str]) -> str:
    pairs = Counter((pair.toolkit, pair.of) for pair in found)
    equal = Counter((pair.toolkit, pair.of) for pair in found if pair.verdict.kind == "equal")
    head = (
        "| toolkit | version | " + " | ".join(QUANTITIES) + " |\n| --- | --- |" + " ---: |" * len(QUANTITIES)
    )
    rows = [
        f"| {name} | {version} | "
        + " | ".join(f"{equal[name, of]:,} of {pairs[name, of]:,}" for of in QUANTITIES)
        + " |"
        for name, version in versions.items()
    ]
    return "\n".join([head, *rows, "", *_classes(found, list(versions))])


def _classes(found: Sequence[Compared], toolkits: Sequence[str]) -> list[str]:
    """A table: the pairs of each class."""
    kinds = Counter((pair.verdict.kind, pair.toolkit) for pair in found)
    shown = [
        "equal",
        *(kind for kind in KINDS if any(kinds[kind, name] for name in toolkits) or kind == "unexplained"),
    ]
    head = "| class | " + " | ".join(toolkits) + " | all |\n| --- |" + " ---: |" * (len(toolkits) + 1)
    rows = []
    for kind in shown:
        counts = [kinds[kind, name] for name in toolkits]
        rows.append(f"| {kind} | " + " | ".join(f"{count:,}" for count in [*counts, sum(counts)]) + " |")
    return [head, *rows]


def _reasons(differences: Sequence[Group]) -> str:
    head = (
        "| | toolkit | quantity | class | its rule, where ours differs | pairs | settings |\n"
        "| ---: | --- | --- | --- | --- | ---: | --- |"
    )
    rows = []
    for number, group in enumerate(differences, 1):
        link = f"[{number}](#{_anchor(number, group)})" if group.program else str(number)
        why = group.why.replace("|", "\\|")
        rows.append(
            f"| {link} | {group.toolkit} | {group.of} | {group.kind} | {why} | {group.pairs:,} "
            f"| {', '.join(group.settings)} |"
        )
    return "\n".join([head, *rows]) if rows else "All pairs are equal."


def _anchor(number: int, group: Group) -> str:
    """GitHub's, of the reproducer's heading."""
    text = _title(number, group).lower()
    return "".join(letter for letter in text if letter.isalnum() or letter in " -_").replace(" ", "-")
