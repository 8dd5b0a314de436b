"""JSON lines, each closed by a CRC-32 of what stands before it, so that a damaged line is recognized."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

SEAL = b', "crc32": "'
"""What stands between a line's record and its checksum, CRC-32 in eight hex digits."""


def sealed(record: dict[str, Any]) -> str:
    """The line of `record`, with its newline."""
    body = json.dumps(record)[:-1]
    return f'{body}{SEAL.decode()}{zlib.crc32(body.encode()):08x}"}}\n'


def opened(content: bytes) -> Iterator[Any]:
    """The record of each line, and None for one that is damaged. What stands after the last newline may still be
    written: it counts once it is whole.

    Lines without a checksum are an older version's, and stand before all that have one.
    """
    seals = False
    *lines, last = content.split(b"\n")
    for line in lines:
        seals = seals or _has_seal(line)
        if line:
            yield _record(line, seals)
    if (record := _record(last, seals or _has_seal(last))) is not None:
        yield record


def _has_seal(line: bytes) -> bool:
    return line[-22:-10] == SEAL


def _record(line: bytes, seals: bool) -> Any:
    if seals:
        body = line[:-22]
        if line[-22:] != b'%s%08x"}' % (SEAL, zlib.crc32(body)):
            return None
        line = body + b"}"
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
