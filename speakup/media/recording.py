"""The door to recordings: what a file holds, and its samples.

A file's bytes are looked at in another process (`sandbox`), so that no file can end this one.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from speakup.blocks import Block
from speakup.errors import InputError
from speakup.media import sandbox
from speakup.media.formats import video_extension
from speakup.media.samples import AudioInfo

__all__ = ["AudioInfo", "kept_extension", "probe", "read_blocks"]


def probe(path: str | os.PathLike[str], track: int | None = None) -> AudioInfo:
    """Find out what a file holds, decoding no more than its beginning.

    Args:
        path: The file.
        track: Which of its audio tracks, from 1; None takes the main one.

    Raises:
        InputError: there is no such file or track, it is empty, is no audio or holds none, must
            not be read, or takes its decoder down.
    """
    return sandbox.probe(_readable(path), track)


def kept_extension(path: str | os.PathLike[str]) -> str | None:
    """Give the extension of an output that keeps a video's pictures; None where there are none.

    A name that is no video's is not opened. A video that cannot be read is taken at its name.
    """
    extension = video_extension(os.fspath(path))
    if extension is not None and os.path.isfile(path):
        with contextlib.suppress(InputError):
            return extension if sandbox.has_pictures(_readable(path)) else None
    return extension


def read_blocks(
    path: str | os.PathLike[str],
    block_samples: int = 65536,
    *,
    track: int | None = None,
    warnings: list[str] | None = None,
) -> Iterator[Block]:
    """Decode a file block by block, at its own rate.

    The samples that encoders add before and after the signal are left out where the file tells
    about them (LAME header, Opus pre-skip, MP4 edit list). A damaged or cut-off file gives what
    can be decoded.

    Args:
        path: The file.
        block_samples: Most samples per block and channel.
        track: Which of its audio tracks, from 1; None takes the main one.
        warnings: Takes one line for each thing that was wrong with the file.

    Yields:
        Blocks of shape (C, T), 0 < T <= block_samples, full scale at 1. Samples beyond full
        scale, and ones that are not numbers, are passed on as they are.

    Raises:
        InputError: as `probe`, or when nothing can be decoded.
    """
    notes = [] if warnings is None else warnings
    yield from sandbox.blocks(_readable(path), block_samples, track, notes)


def _readable(path: str | os.PathLike[str]) -> Path:
    """Check that there is something to read.

    Raises:
        InputError: there is not.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError("is a folder", path, "Give an audio file")
        if not stat.S_ISREG(mode):
            raise InputError("is not an ordinary file", path, "Give an audio file")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError("is empty: 0 bytes", path, "Copy or record it again")
    except FileNotFoundError as error:
        raise InputError("no such file", path, "Check the name and the folder") from error
    except PermissionError as error:
        raise InputError("no permission to read it", path, "Change its permissions") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {reason}", path) from error
    return path
