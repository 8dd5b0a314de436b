"""The table for a paper: this text, and LaTeX whatever a method is called."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from fakes.runs_folder import begin, finish, plan, stage
from fakes.sweeps import small
from hypothesis import example, given
from hypothesis import strategies as st

from analysis.report import latex, results

GOLDEN = r"""% Needs \usepackage{booktabs}.
\begin{table}
\centering\scriptsize\setlength{\tabcolsep}{3pt}
\caption{resnet20 on cifar10}
\begin{tabular}{lrrrrrrrlrl}
\toprule
method & weights & acts & top-1 \% ($n$) & 95 \% & drop & 95 \% & MB & published & its top-1 & verdict \\
\midrule
float & float & float & 91.50 $\pm$ 0.71 (2) & 85.15 to 97.85 &  &  & 1.09 & original model (001) & 91.00 & model not stated \\
 &  &  &  &  &  &  &  & fp32 original (002) & 93.62 & other model or data \\
qat\_asymmetric & 8 & 8 & failed (0 of 2) &  &  &  &  & asymmetric model (001) & 89.00 & not run \\
k\_sigma & 9 & float & 90.50 $\pm$ 0.71 (2) & 84.15 to 96.85 & 1.00 $\pm$ 0.00 & 0.21 to 1.79 & 0.306 & 8 bit (003), best epoch & 90.26 & reproduced $\pm$1.92 \\
k\_sigma & 5 & float & 10.00 (1 of 2) & 9.43 to 10.60 & 81.00 & 80.19 to 81.81 & 0.17 & 4 bit (003), best epoch & 83.99 & not reproduced $\pm$0.95 \\
a$|$b & 4 & 4 & not run (0 of 2) &  &  &  &  &  &  &  \\
\bottomrule
\end{tabular}
\par\medskip\raggedright
Measured: resnet20 on cifar10, 10,000 test images, seeds: 0, 1.\par
Device: AMD EPYC, 1 thread. Versions: python 3.11.15, torch 2.13.0. Commit: 0123456789.\par
"""  # noqa: E501
COMMANDS = {
    "begin", "end", "centering", "scriptsize", "setlength", "tabcolsep", "caption", "toprule", "midrule", "bottomrule",
    "par", "medskip", "raggedright", "pm", "to", "textsuperscript", "textbackslash", "textasciitilde",
    "textasciicircum",
}  # fmt: skip


def faults(text: str) -> list[str]:
    """What LaTeX would refuse in `text`: unknown commands, special characters, unbalanced dollars and braces."""
    bare = re.sub(r"^% Needs.*\n", "", text)
    bare = re.sub(r"\\\\", " ", bare)
    bare = re.sub(r"\\[{}$&#_%]", "", bare)
    found = sorted(set(re.findall(r"\\([a-zA-Z]+)", bare)) - COMMANDS)
    bare = re.sub(r"\\[a-zA-Z]+", "", bare)
    found += re.findall(r"[\\%#_^~]", bare)
    found += ["odd number of $"] if bare.count("$") % 2 else []
    depths = list(itertools.accumulate((letter == "{") - (letter == "}") for letter in bare))
    return found + (["unbalanced braces"] if depths and (min(depths) < 0 or depths[-1]) else [])


def printed(text: str) -> str:
    """What LaTeX prints for a text without commands of its own."""
    letters = {written: letter for letter, written in latex.SPECIAL.items()} | {"-{}": "-", "$-$": "-"}
    return re.sub("|".join(map(re.escape, letters)), lambda match: letters[match[0]], text)


def rows(text: str) -> list[str]:
    return re.findall(r"^(.*) \\\\$", text, re.MULTILINE)


def test_the_table_is_this_one(tmp_path: Path) -> None:
    small(tmp_path)
    text = latex.table(results.load(tmp_path, "small"))
    assert text.startswith(GOLDEN) and faults(text) == []
    assert text.endswith("\\end{table}\n") and r"qat\_asymmetric w8a8 seed 0: CUDA out of memory\par" in text


def test_marks_are_raised_and_explained_and_a_hostile_name_breaks_nothing(tmp_path: Path) -> None:
    names = [r"[a]\input{x}", "*50 % & $#_{^~", "\N{MINUS SIGN}2 é \N{SNOWMAN} <->", "plain [a]"]
    stages = [stage(name, 8, 0) for name in names]
    plan(tmp_path, *stages)
    for one in stages:
        finish(tmp_path, one, 90.0)
    begin(tmp_path, stages[0], device="NVIDIA_H200")
    text = latex.table(results.load(tmp_path, "small"))
    assert faults(text) == []
    assert len(rows(text)) == 5 and all(len(re.findall(r"(?<!\\)&", row)) == 10 for row in rows(text))
    assert not [row for row in rows(text) if row.startswith(("[", "*"))]
    assert r"{[}a]\textbackslash{}input\{x\} & 8" in text and r"90.00 (1)\textsuperscript{a}" in text
    assert r"\textsuperscript{a} Another device behind this number: NVIDIA\_H200;" in text


@given(st.text(max_size=40))
@example("a--b -1 \\ 100 %")
def test_any_text_escaped_is_printed_as_it_is_with_question_marks_for_letters_that_are_missing(
    words: str,
) -> None:
    text = latex.escaped(words)
    known = "".join(
        letter if " " <= letter < "\u0180" or letter in "\N{MINUS SIGN}→" else "?" for letter in words
    )
    assert faults(text) == [] and printed(text) == known.replace("\N{MINUS SIGN}", "-")


def test_what_latex_would_refuse_is_found() -> None:
    assert faults(r"\input{x} 5 % $a {") == ["input", "%", "odd number of $", "unbalanced braces"]
