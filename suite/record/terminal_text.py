"""How texts are shown on a terminal: what its encoding lacks is spelled, and defaults are as one types them."""

from __future__ import annotations

import codecs
import io
import sys

SPELLED = {
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{MIDDLE DOT}": "-",
    "\N{NO-BREAK SPACE}": " ",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{NOT EQUAL TO}": "!=",
}
"""What the suite itself writes beyond ASCII; of any other character a question mark is left."""


def spell_what_cannot_be_written() -> None:
    """Let standard output and error spell what their encoding cannot write."""
    codecs.register_error("spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def default_shown(value: object) -> str | None:
    """The default of an option as one would type it, for --help; None where there is nothing to type.

    >>> default_shown((2, 3)), default_shown(0.9), default_shown(False), default_shown("")
    ('2 3', '0.9', None, None)
    """
    text = " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return None if value is None or value is False else text or None


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(SPELLED.get(letter, "?") for letter in text), error.end
