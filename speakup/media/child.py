"""The child process of `sandbox`: answer requests to probe and decode, under limits.

A request is a line of JSON on standard input. Answers go to standard output: a byte that says of
which kind, eight bytes of size, and so much of JSON, or of samples after eight more bytes that
count the channels. Nothing is unpickled on either side.

Time is limited in CPU seconds from one answer to the next, so that a busy machine or a slow disk
refuses no file; memory by what the process has at most. Both limits are held by the system where
it can, and by a thread that looks.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK, DONE, WRONG = b"B", b"D", b"W"

MOST_SECONDS = 12.0
"""Of CPU time from one answer to the next."""

LEAST_BYTES_A_SECOND = 20e6
"""A file's size by this is more time that it may take: some is searched byte by byte."""

MOST_BYTES = 1 << 30
"""What a child may have; decoding any sound takes a tenth."""

OUT_OF_TIME, OUT_OF_MEMORY = 71, 72
_LOOK_SECONDS = 0.1


def main() -> None:
    """Answer requests until standard input ends."""
    with contextlib.suppress(KeyboardInterrupt):
        _Server().run()


class _Server:
    """What answers; its files are its own, so that nothing printed gets between answers."""

    def __init__(self) -> None:
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.dup(1)
        os.dup2(2, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._seconds: float | None = None
        self._since = 0.0

    def run(self) -> None:
        """Answer until there is nobody to ask."""
        # Before the libraries load, whose threads and tables are not a file's doing.
        import av

        from speakup.media import samples  # noqa: F401

        av.logging.set_level(None)
        _limit()
        for work in (self._listen, self._look):
            threading.Thread(target=work, daemon=True).start()
        while True:
            self._serve(json.loads(self._lines.get()))

    def _listen(self) -> None:
        """Take requests; end at once with the one who asks, whatever is being decoded."""
        for line in self._in:
            self._lines.put(line)
        os._exit(0)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            seconds = self._seconds
            if seconds is not None and time.process_time() - self._since > seconds:
                os._exit(OUT_OF_TIME)
            if _memory() > MOST_BYTES:
                os._exit(OUT_OF_MEMORY)

    def _serve(self, request: dict[str, Any]) -> None:
        from speakup.errors import InputError

        self._since, self._seconds = time.process_time(), request["seconds"]
        self._restart_clock()
        kind, extra = DONE, b""
        try:
            value, extra = self._value(request)
            answer = {"value": value, "bytes": len(extra)}
        except InputError as error:
            kind, answer = WRONG, {"problem": error.problem, "remedy": error.remedy}
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:  # of a library that was not made for such a file
            problem = f"cannot be decoded: {type(error).__name__}: {error}".replace("\n", " ")
            kind, answer = WRONG, {"problem": problem, "remedy": None}
        self._seconds = None
        text = json.dumps(answer).encode()
        self._write(kind + len(text).to_bytes(8, "little") + text + extra)

    def _value(self, request: dict[str, Any]) -> tuple[Any, bytes]:
        import numpy as np

        from speakup.media import samples

        path, track = Path(request["path"]), request.get("track")
        if request["do"] == "has_pictures":
            return samples.has_pictures(path), b""
        if request["do"] == "probe":
            info = vars(samples.probe(path, track)).copy()
            del info["path"]
            info["chapters"] = [vars(chapter) for chapter in info["chapters"]]
            return info, info.pop("cover") or b""
        notes: list[str] = []
        for block in samples.blocks(path, request["block_samples"], track, notes):
            data = np.ascontiguousarray(block, np.float32).data.cast("B")
            sizes = len(data).to_bytes(8, "little") + len(block).to_bytes(8, "little")
            self._write(BLOCK + sizes)
            self._write(data)
            self._restart_clock()
        return notes, b""

    def _restart_clock(self) -> None:
        self._since = time.process_time()
        if _limit_time is not None and self._seconds is not None:
            _limit_time(self._seconds)

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._out, view) :]
        except OSError:
            os._exit(0)


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    class _Counters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of psapi.h."""

        _fields_ = (
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            *(
                (name, ctypes.c_size_t)
                for name in (
                    "PeakWorkingSetSize",
                    "WorkingSetSize",
                    "QuotaPeakPagedPoolUsage",
                    "QuotaPagedPoolUsage",
                    "QuotaPeakNonPagedPoolUsage",
                    "QuotaNonPagedPoolUsage",
                    "PagefileUsage",
                    "PeakPagefileUsage",
                )
            ),
        )

    _limit_time: Callable[[float], None] | None = None

    def _limit() -> None:
        """Have no dialogue box when a decoder crashes (SEM_NOGPFAULTERRORBOX and the like)."""
        ctypes.windll.kernel32.SetErrorMode(0x0001 | 0x0002 | 0x8000)

    def _memory() -> int:
        """Tell how much memory the process has."""
        counters = _Counters()
        counters.cb = ctypes.sizeof(counters)
        process = wintypes.HANDLE(-1)  # this one
        ctypes.windll.kernel32.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb)
        return int(counters.PagefileUsage)

else:
    import resource

    def _limit_time(seconds: float) -> None:
        """Have the system end the process should even the thread that looks not be let in."""
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        wanted = int(used + 1.5 * seconds) + 2
        with contextlib.suppress(ValueError, OSError):
            if hard == resource.RLIM_INFINITY or wanted <= hard:
                resource.setrlimit(resource.RLIMIT_CPU, (wanted, hard))

    def _limit() -> None:
        """Leave no core file behind, and get no more memory than a sound needs."""
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(ValueError, OSError), open("/proc/self/statm") as pages:
            there = int(pages.read().split()[0]) * resource.getpagesize()
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            most = there + MOST_BYTES
            if hard == resource.RLIM_INFINITY or most <= hard:
                resource.setrlimit(resource.RLIMIT_AS, (most, hard))

    def _memory() -> int:
        """Tell how much memory the process has; where that cannot be read, has had at most.

        Linux counts what its parent had when it was started into what a process has had at most:
        getrusage(2) tells of the process, not of the program.
        """
        with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as pages:
            return int(pages.read().split()[1]) * resource.getpagesize()
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
