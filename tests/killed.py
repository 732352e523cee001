"""Kill a folder's run at system calls, and see whether the next run makes good what is left.

A program for Linux. It runs in a folder of its own:

    python tests/killed.py KILLS SEED

One run is traced to count its system calls. Then that run is done again and again in a process that
is killed (SIGKILL) as it enters or leaves one of them, at even distances from a random first one.
After each kill no output may be there but whole, and the same run again must end with what an
unbroken run gives, do nothing twice that was done, and leave nothing else, neither in the folder of
outputs nor in the temporary one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

TRACE_ME, SYSCALL, SET_OPTIONS = 0, 24, 0x4200
SYSTEM_CALLS_APART, THREADS_TOO, END_WITH_TRACER = 1, 8, 0x100000
ALL_THREADS = 0x40000000
AT_SYSTEM_CALL = signal.SIGTRAP | 0x80

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def ptrace(request: int, pid: int, data: int = 0) -> None:
    if libc.ptrace(request, pid, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def forked(work: Callable[[], None], *, traced: bool) -> int:
    """Start work in a process that is forked from this one, in which all is loaded."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if traced:
            ptrace(TRACE_ME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def trace(pid: int, kill_at: int | None) -> tuple[int, int]:
    """Follow a process to its end, or kill it; give its system calls and what it ended with."""
    os.waitpid(pid, 0)
    ptrace(SET_OPTIONS, pid, SYSTEM_CALLS_APART | THREADS_TOO | END_WITH_TRACER)
    ptrace(SYSCALL, pid)
    stops = 0
    while True:
        thread, status = os.waitpid(-1, ALL_THREADS)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if thread == pid:
                return stops, status
            continue
        number = os.WSTOPSIG(status)
        if number == AT_SYSTEM_CALL:
            stops += 1
            if stops == kill_at:
                os.kill(pid, signal.SIGKILL)
        quiet = (AT_SYSTEM_CALL, signal.SIGTRAP, signal.SIGSTOP)
        with contextlib.suppress(ProcessLookupError):  # It is dying.
            ptrace(SYSCALL, thread, 0 if number in quiet else number)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if "/." not in f"/{name}"}


def faults(kills: int, seed: int) -> Iterator[str]:
    """Yield a line for each thing that went wrong, and progress on stderr."""
    import numpy as np
    import soundfile

    from speakup.config import Config
    from speakup.folders.journal import JOURNAL_FILE
    from speakup.folders.run import run_batch
    from speakup.pipeline import Pipeline  # Loaded once, before anything is forked.

    config = Config(denoise=False, upsample="off", sample_rate="keep", device="cpu")
    Pipeline(config)
    os.environ["TMPDIR"] = str(Path("tmp").resolve())
    tempfile.tempdir = None
    for name in ("in", "in/deep", "out", "tmp"):
        Path(name).mkdir()
    for number, name in enumerate(("a.wav", "b.flac", "deep/c.wav")):
        noise = np.random.default_rng(number).uniform(-0.3, 0.3, 12_000)
        soundfile.write(f"in/{name}", noise, 8_000)

    def work() -> None:
        summary = run_batch(["in"], "out", config=config)
        if summary.failed:
            raise RuntimeError([str(result.error) for result in summary.results])

    def in_peace() -> str:
        _, status = os.waitpid(forked(work, traced=False), 0)
        return "" if status == 0 else f"the next run ended with {status}"

    def left() -> str:
        hidden = [path.name for path in Path("out").rglob(".*") if path.name != JOURNAL_FILE]
        return ", ".join(hidden + [path.name for path in Path("tmp").iterdir()])

    if said := in_peace():
        yield said
    whole = outputs(Path("out"))
    if len(whole) != 3:
        yield f"an unbroken run gives {sorted(whole)}"
    shutil.rmtree("out")
    total, _ = trace(forked(work, traced=True), None)
    first = random.Random(seed).uniform(0.0, 1.0)
    for count in range(kills):
        shutil.rmtree("out", ignore_errors=True)
        Path("out").mkdir()
        kill_at = 1 + int((count + first) / kills * total)
        _, status = trace(forked(work, traced=True), kill_at)
        print(f"killed at {kill_at} of {total}", file=sys.stderr, flush=True)
        partial = [name for name, data in outputs(Path("out")).items() if data != whole[name]]
        if partial:
            yield f"killed at {kill_at}: not whole: {partial}"
        before = {name: Path("out", name).stat().st_mtime_ns for name in outputs(Path("out"))}
        if said := in_peace():
            yield f"killed at {kill_at}: {said}"
        if outputs(Path("out")) != whole:
            yield f"killed at {kill_at}: the next run gives something else"
        again = [n for n, t in before.items() if Path("out", n).stat().st_mtime_ns != t]
        if again:
            yield f"killed at {kill_at}: done twice: {again}"
        if rest := left():
            yield f"killed at {kill_at}: left behind: {rest}"


if __name__ == "__main__":
    wrong = list(faults(int(sys.argv[1]), int(sys.argv[2])))
    print("\n".join(wrong))
    sys.exit(bool(wrong))
