"""The door to recordings: what a file holds, and its samples.

A file's bytes are looked at in another process (`sandbox`), so that no file can end this one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from speakup.blocks import Block
from speakup.errors import InputError
from speakup.media import sandbox
from speakup.media.formats import video_extension
from speakup.media.samples import AudioInfo

__all__ = ["AudioInfo", "Recording", "kept_extension", "opened", "probe", "read_blocks"]


class Recording:
    """A recording on disk: what it holds, found out once, and its samples.

    Made by `opened`, which gives the same one until the file changes.

    Args:
        path: The file, which can be opened.

    Attributes:
        path: As given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[int | None, AudioInfo | InputError] = {}
        self._finding = threading.Lock()

    @property
    def info(self) -> AudioInfo:
        """Tell what the file and its main track are like."""
        return self.track(None)

    def track(self, number: int | None) -> AudioInfo:
        """Tell what an audio track is like, from 1; None takes the main one.

        Raises:
            InputError: there is no such track, or it cannot be decoded.
        """
        with self._finding:
            found = self._found.get(number) or self._probed(number)
        if isinstance(found, InputError):
            raise InputError(found.problem, self.path, found.remedy)
        return found

    def _probed(self, number: int | None) -> AudioInfo | InputError:
        try:
            found: AudioInfo | InputError = sandbox.probe(self.path, number)
        except InputError as error:
            found = error
        self._found[number] = found
        if number is None and isinstance(found, AudioInfo):
            self._found[found.number] = found
        return found

    @functools.cached_property
    def has_pictures(self) -> bool:
        """Tell whether there are moving pictures beside the sound."""
        return sandbox.has_pictures(self.path)

    def blocks(
        self,
        block_samples: int = 65536,
        *,
        track: int | None = None,
        warnings: list[str] | None = None,
    ) -> Iterator[Block]:
        """Decode as `read_blocks`."""
        notes = [] if warnings is None else warnings
        yield from sandbox.blocks(self.path, block_samples, track, notes)


@dataclass(frozen=True)
class _State:
    """What tells a file from the one that had its name before."""

    path: str
    place: tuple[int, int]
    size: int
    times: tuple[int, int]


_known: OrderedDict[_State, Recording] = OrderedDict()
_MOST_KNOWN = 32
_knowing = threading.Lock()


def opened(path: str | os.PathLike[str]) -> Recording:
    """Give a recording; the same object for a file that has not changed.

    Planning, checking and doing each ask what a file holds, in places that know only its name.

    Raises:
        InputError: there is no such file, it is empty, or must not be read.
    """
    path = _readable(path)
    try:
        now = path.stat()
    except OSError as error:
        raise InputError("no such file", path, "Check the name and the folder") from error
    place, times = (now.st_dev, now.st_ino), (now.st_mtime_ns, now.st_ctime_ns)
    state = _State(os.path.abspath(path), place, now.st_size, times)
    with _knowing:
        found = _known.pop(state, None)
        if found is None or found.path != path:
            found = Recording(path)
        _known[state] = found
        while len(_known) > _MOST_KNOWN:
            _known.popitem(last=False)
    return found


def probe(path: str | os.PathLike[str], track: int | None = None) -> AudioInfo:
    """Find out what a file holds, decoding no more than its beginning, and that once.

    Args:
        path: The file.
        track: Which of its audio tracks, from 1; None takes the main one.

    Raises:
        InputError: there is no such file or track, it is empty, is no audio or holds none, must
            not be read, or takes its decoder down.
    """
    return opened(path).track(track)


def kept_extension(path: str | os.PathLike[str]) -> str | None:
    """Give the extension of an output that keeps a video's pictures; None where there are none.

    A name that is no video's is not opened. A video that cannot be read is taken at its name.
    """
    extension = video_extension(os.fspath(path))
    if extension is not None and os.path.isfile(path):
        with contextlib.suppress(InputError):
            return extension if opened(path).has_pictures else None
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
    yield from opened(path).blocks(block_samples, track=track, warnings=warnings)


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
