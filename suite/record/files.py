"""Files of a run directory: written whole or not at all; read without following links, and up to a size."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

MIB = 2**20
MOST_BYTES = 64 * MIB
"""Of a file that is read at once."""


@dataclass(frozen=True)
class Folders:
    """Where runs are written and where data sets lie."""

    runs: Path
    data: Path


def printable(text: str) -> str:
    """Text that somebody else may have written, with `?` for what a terminal would take for a command."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(content: Any, file: Path) -> None:
    """JSON, whole or not at all, and on disk when this returns."""
    write_bytes(json.dumps(content, indent=1).encode(), file)


SEALED = re.compile(rb',\n "([^\n]{5})": "([^\n]{8})"\n}$')
"""The end of sealed JSON: its checksum, whatever a flipped bit has made of the name `crc32`."""


def write_sealed_json(content: dict[str, Any], file: Path) -> None:
    """As `write_json`, closed by a CRC-32 of what precedes it: a bit that flips on the disk is noticed."""
    body = json.dumps(content, indent=1)[:-2].encode()
    write_bytes(b'%s,\n "crc32": "%08x"\n}' % (body, zlib.crc32(body)), file)


def read_sealed_json(raw: bytes) -> dict[str, Any]:
    """The content that `write_sealed_json` was given; that of an older version has no checksum. Raises ValueError for
    what is damaged or no object."""
    seal = SEALED.search(raw)
    if seal and (b"crc32", b"%08x" % zlib.crc32(raw[: seal.start()])) != seal.groups():
        raise ValueError("is not what its checksum says")
    content = json.loads(raw)
    if type(content) is not dict:
        raise ValueError("is no object")
    content.pop("crc32", None)
    return content


def read_object(path: Path | str) -> dict[str, Any]:
    """The JSON object in a file that somebody else may have written; empty where there is none that can be read."""
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if type(content) is dict else {}


def write_bytes(content: bytes, file: Path, sync: bool = True) -> None:
    """Whole or not at all, and on disk under its name when this returns unless `sync` is off. A full disk raises
    OSError and keeps nothing."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.writing")
    try:
        with open_fresh(fresh) as stream:
            stream.write(content)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        move(fresh, file, sync)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def move(fresh: Path, file: Path, sync: bool = True) -> None:
    """Rename within a folder; unless `sync` is off, the folder is on disk when this returns, and so is the name."""
    fresh.replace(file)
    if not sync:
        return
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_fresh(path: Path) -> BinaryIO:
    """`path` for writing, made anew: what a killed process left there, or a link of somebody else, is removed."""
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return cast(BinaryIO, os.fdopen(os.open(path, flags, 0o666), "wb"))


def open_to_append(path: Path) -> BinaryIO:
    """`path` for appending, unbuffered, made where it is not there. Raises OSError where it is a link, which somebody
    else may have put there, or no regular file."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        number = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise OSError(error.errno, "is a link, which is not followed; remove it", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "is no regular file; remove it", str(path))
    return cast(BinaryIO, os.fdopen(number, "ab", buffering=0))


def open_regular(path: Path | str) -> BinaryIO:
    """`path` for reading. Raises FileNotFoundError where it is not there, and OSError, with the reason in words that
    follow the name, where it is no regular file (a link may lead to a device, a FIFO waits) or cannot be read."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(str(path)) from None
    except OSError as error:
        what = "is a link" if os.path.islink(path) else f"cannot be read: {error.strerror}"
        raise OSError(what) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError("is no regular file")
    return os.fdopen(number, "rb")


def read_bytes(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """The content of `path` when it was opened. Raises as `open_regular` does, and OSError beyond `most` bytes."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise OSError(f"has more than {most // MIB} MiB")
        return stream.read(size)
