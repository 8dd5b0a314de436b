"""Parameters in words, for the names of stages and for the labels of tables."""

from __future__ import annotations

import re

CLASS = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)*(?=[(),]|$)")


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun in the right number; the plural is the noun with an s, or es after an s, if not given.

    >>> counted(1, "job"), counted(0, "job"), counted(10000, "class")
    ('1 job', '0 jobs', '10,000 classes')
    """
    plural = plural or noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def is_seed(name: str) -> bool:
    """Whether runs of one configuration may differ in the parameter: a seed of the training or of its data."""
    return name == "seed" or name.endswith("_seed")


def phrase(name: str, value: object) -> str:
    """A field and what it holds.

    >>> phrase("train_mode", True), phrase("search", False), phrase("size_bits", 3.0)
    ('train mode', 'no search', 'size bits 3.0')
    >>> phrase("damping", in_words("Damping")), phrase("damping", in_words("Damping(strength=0.2)"))
    ('damping', 'damping (strength 0.2)')
    """
    label, words = name.replace("_", " "), str(value)
    if value is True or value is False:
        return label if value else f"no {label}"
    return words if words == label or words.startswith(f"{label} (") else f"{label} {words}"


def in_words(text: str) -> str:
    """The text of a dataclass or of several, as `suite.recipe.serialize.text` makes it, without the signs of code;
    another text as it is.

    >>> in_words("Uniform(range=LeastError, unsigned=True)"), in_words("O2 bfloat16")
    ('uniform (range least error, unsigned)', 'O2 bfloat16')
    """
    if not CLASS.match(text):
        return text
    text = re.sub(r"\b(\w+)=(True|False)\b", lambda m: m[1] if m[2] == "True" else f"no {m[1]}", text)
    text = CLASS.sub(lambda m: re.sub(r"(?<=[a-z])(?=[A-Z])", " ", m[0]).lower(), text)
    text = re.sub(r"\b(\w+)=", r"\1 ", text)
    return re.sub(r",(?=\w)", ", ", text).replace("_", " ").replace("(", " (")
