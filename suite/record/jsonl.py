"""JSON lines, each closed by a CRC-32 of what precedes it, so that a damaged line is recognized."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

SEAL = b', "crc32": "'
"""Between a line's record and its checksum, CRC-32 in eight hex digits."""

_decode = json.JSONDecoder().raw_decode
"""Half the time of json.loads."""


def sealed(record: dict[str, Any]) -> str:
    """The line of `record`, with its newline."""
    body = json.dumps(record)[:-1]
    return f'{body}{SEAL.decode()}{zlib.crc32(body.encode()):08x}"}}\n'


class Opener:
    """Opens the lines of one file in their order.

    Lines without a checksum are an older version's, and stand before all that have one.
    """

    def __init__(self) -> None:
        self._seals = False

    def record(self, line: bytes) -> Any:
        """The record of a line, without its newline; None where it is damaged."""
        self._seals = self._seals or _has_seal(line)
        return _record(line, self._seals)

    def unfinished(self, line: bytes) -> Any:
        """The record of a line whose newline is still to be written; None until it is whole."""
        return _record(line, self._seals or _has_seal(line))


def opened(content: bytes) -> Iterator[Any]:
    """The record of each line, and None for one that is damaged. What follows the last newline may still be
    written: it counts once it is whole."""
    opener = Opener()
    *lines, last = content.split(b"\n")
    for line in lines:
        if line:
            yield opener.record(line)
    if (record := opener.unfinished(last)) is not None:
        yield record


def is_whole(content: bytes) -> bool:
    """Whether every line is finished and is what its checksum says: a tenth of the time of `opened`."""
    *lines, last = content.split(b"\n")
    return not last and all(line[-22:] == b'%s%08x"}' % (SEAL, zlib.crc32(line[:-22])) for line in lines)


def _has_seal(line: bytes) -> bool:
    return line[-22:-10] == SEAL


def _record(line: bytes, seals: bool) -> Any:
    if seals:
        body = line[:-22]
        if line[-22:] != b'%s%08x"}' % (SEAL, zlib.crc32(body)):
            return None
        line = body + b"}"
    try:
        text = line.decode()
        record, end = _decode(text)
    except (ValueError, RecursionError):
        return None
    return record if end == len(text) else None
