"""Decode in child processes, so that what a file does to a decoder is done to a child.

FFmpeg and libsndfile read what anybody made. A fault of theirs may end the process, hang it or
take all memory, and no `except` helps then. So foreign bytes are decoded by children (`child`),
started when first needed and reused from file to file. A child that dies, stalls or takes too
much costs the file that it was at. A child only reads; it ends when its pipe does, so that
nothing of it stays, however its parent ends.

Where this process has no Python to start (a frozen program), it decodes by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from speakup.blocks import Block
from speakup.errors import InputError
from speakup.media import child, samples
from speakup.media.ffmpeg import Chapter
from speakup.media.samples import AudioInfo

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from speakup.media.child import main; main()"
)
_PIPE_BYTES = 1 << 20
"""What a child may be ahead: several blocks, where the system lets the pipe have it."""

_STALLED_SECONDS = 120.0
"""Without a byte, so long a child is waited for that uses no time: for a disk or a network."""

_MOST_IDLE = 4


def probe(path: Path, track: int | None) -> AudioInfo:
    """Do as `samples.probe` in a child.

    Raises:
        InputError: as there; or the decoder crashed or took too much time or memory.
    """
    if not _can_start():
        return samples.probe(path, track)
    answer, cover = _asked(path, {"do": "probe", "track": track})
    answer["chapters"] = [Chapter(**chapter) for chapter in answer["chapters"]]
    for name in ("notes", "speakers", "chapters", "extras"):
        answer[name] = tuple(answer[name])
    return AudioInfo(path=path, cover=cover or None, **answer)


def has_pictures(path: Path) -> bool:
    """Do as `samples.has_pictures` in a child.

    Raises:
        InputError: as `probe`.
    """
    if not _can_start():
        return samples.has_pictures(path)
    return bool(_asked(path, {"do": "has_pictures"})[0])


def blocks(path: Path, block_samples: int, track: int | None, notes: list[str]) -> Iterator[Block]:
    """Do as `samples.blocks` in a child.

    Raises:
        InputError: as `probe`.
    """
    if not _can_start():
        yield from samples.blocks(path, block_samples, track, notes)
        return
    with _borrowed(path) as one:
        one.ask(path, {"do": "blocks", "track": track, "block_samples": block_samples})
        while (block := one.block(path)) is not None:
            yield block
        notes += one.answer(path)[0]


def _can_start() -> bool:
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _asked(path: Path, request: dict[str, Any]) -> tuple[Any, bytes]:
    with _borrowed(path) as one:
        one.ask(path, request)
        return one.answer(path)


class _Child:
    """A process that answers one request at a time."""

    def __init__(self) -> None:
        paths = json.dumps([os.path.abspath(place) for place in sys.path])
        apart: dict[str, Any] = {"process_group": 0}  # Ctrl-C is its parent's business.
        if os.name == "nt":
            flags = "CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW"
            apart = {"creationflags": sum(getattr(subprocess, flag) for flag in flags)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=os.path.abspath(os.sep),
            env=os.environ | {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            **apart,
        )
        self.deadline: float | None = None
        self._allowed = _STALLED_SECONDS
        self._stalled = False
        self._header = b""
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def _output(self) -> Any:
        return cast(Any, self._process.stdout)

    def ask(self, path: Path, request: dict[str, Any]) -> None:
        """Send a request."""
        size = 0
        with contextlib.suppress(OSError):
            size = path.stat().st_size
        self._allowed = _STALLED_SECONDS + size / child.LEAST_BYTES_A_SECOND
        seconds = child.MOST_SECONDS + size / child.LEAST_BYTES_A_SECOND
        request |= {"path": os.path.abspath(path), "seconds": seconds}
        with contextlib.suppress(OSError):  # It has died; reading from it says so.
            cast(Any, self._process.stdin).write(json.dumps(request).encode() + b"\n")

    def block(self, path: Path) -> Block | None:
        """Give the next block; None at the end."""
        kind, size = self._head(path)
        if kind != child.BLOCK:
            self._header = kind + size.to_bytes(8, "little")
            return None
        (channels,) = struct.unpack("<Q", self._read(8, path))
        block = np.empty((channels, size // channels // 4), np.float32)
        self._fill(block.data.cast("B"), path)
        return block

    def answer(self, path: Path) -> tuple[Any, bytes]:
        """Give what the child answers at the end: a value, and bytes that belong to it.

        Raises:
            InputError: what it says is wrong with the file, or its end.
        """
        kind, size = self._head(path)
        answer = json.loads(self._read(size, path))
        if kind == child.WRONG:
            raise InputError(answer["problem"], path, answer["remedy"])
        return answer["value"], self._read(answer["bytes"], path)

    def _head(self, path: Path) -> tuple[bytes, int]:
        head, self._header = self._header or self._read(9, path), b""
        return head[:1], int.from_bytes(head[1:], "little")

    def _read(self, size: int, path: Path) -> bytes:
        data = bytearray(size)
        self._fill(memoryview(data), path)
        return bytes(data)

    def _fill(self, view: memoryview, path: Path) -> None:
        """Read until the memory is full, or say how the child ended before."""
        while view:
            self.deadline = time.monotonic() + self._allowed
            count = self._output.readinto(view)
            self.deadline = None
            if not count:
                raise self._died(path)
            view = view[count:]

    def _died(self, path: Path) -> InputError:
        code = self._process.wait()
        if self._stalled or code in (child.OUT_OF_TIME, -getattr(signal, "SIGXCPU", 0)):
            return InputError("takes too long to decode: it may be damaged", path)
        if code == child.OUT_OF_MEMORY:
            return too_much_memory(path)
        return InputError("is damaged so that its decoder crashes", path)

    def look(self) -> None:
        """End a child that has been waited for too long."""
        deadline = self.deadline
        if deadline is not None and time.monotonic() > deadline:
            self._stalled = True
            self._process.kill()

    @property
    def lives(self) -> bool:
        """Tell whether it can be asked again."""
        return self._process.poll() is None

    def end(self) -> None:
        """End it, and wait for that."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                cast(Any, pipe).close()


def too_much_memory(path: Path) -> InputError:
    """Say that a file wants more memory than any sound."""
    gigabytes = child.MOST_BYTES / 2**30
    return InputError(f"takes over {gigabytes:g} GiB of memory to decode: it may be damaged", path)


class _Children:
    """Those that this process has: idle ones wait to be asked again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._all: set[_Child] = set()
        self._idle: list[_Child] = []
        self._watch: threading.Thread | None = None

    def take(self) -> _Child:
        """Give a child that nobody else has.

        Raises:
            OSError: none can be started.
        """
        with self._guard:
            while self._idle:
                if (one := self._idle.pop()).lives:
                    return one
                self._all.discard(one)
                one.end()
            one = _Child()
            self._all.add(one)
            if self._watch is None or not self._watch.is_alive():
                self._watch = threading.Thread(
                    target=self._look, daemon=True, name="speakup-decoders"
                )
                self._watch.start()
            return one

    def give(self, one: _Child, *, reusable: bool) -> None:
        """Take a child back."""
        with self._guard:
            if reusable and one.lives and len(self._idle) < _MOST_IDLE:
                self._idle.append(one)
                return
            self._all.discard(one)
        one.end()

    def end(self) -> None:
        """End all."""
        with self._guard:
            every, self._all, self._idle = self._all, set(), []
        for one in every:
            one.end()

    def _look(self) -> None:
        while True:
            time.sleep(1.0)
            with self._guard:
                every = list(self._all)
                if not every:
                    self._watch = None
                    return
            for one in every:
                one.look()


_children = _Children()
atexit.register(lambda: _children.end())


def _forget_children() -> None:
    """Leave them to the parent, after this process was forked from it."""
    global _children
    _children = _Children()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_children)


@contextlib.contextmanager
def _borrowed(path: Path) -> Iterator[_Child]:
    """Lend a child for one request; one whose answer is not read to its end is not used again."""
    mine = _children
    try:
        one = mine.take()
    except OSError as error:
        reason = f"cannot be decoded: no process can be started ({error.strerror})"
        raise InputError(reason, path, "Close other programs and try again") from error
    reusable = False
    try:
        yield one
        reusable = True
    except InputError:
        reusable = True
        raise
    finally:
        mine.give(one, reusable=reusable)
