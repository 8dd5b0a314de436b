"""Opens files of a run directory safely: no links, no pipes, and a limit of size."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

MIB = 2**20
MOST = 64 * MIB
"""Bytes of a file that is read at once."""


def opened(path: Path) -> BinaryIO:
    """`path` for reading. Raises FileNotFoundError where it is not there, and OSError, with the reason in words that
    follow the name, where it is no regular file (a link may lead to a device, a FIFO waits) or cannot be read."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(str(path)) from None
    except OSError as error:
        what = "is a link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise OSError(what) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError("is no regular file")
    return os.fdopen(number, "rb")


def read(path: Path, most: int = MOST) -> bytes:
    """The content of `path` when it was opened. Raises as `opened` does, and OSError beyond `most` bytes."""
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise OSError(f"has more than {most // MIB} MiB")
        return stream.read(size)
