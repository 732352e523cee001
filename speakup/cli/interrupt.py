"""Ctrl-C and its like: an orderly end, and where that takes too long, an end all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from speakup.files import remove_all

_PATIENCE_SECONDS = 0.8
"""How long the work may take to unwind: networks cannot be stopped in the middle."""

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """A signal has come; `exit_code` is what a shell says of it, 130 after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextlib.contextmanager
def interruptible(say: Callable[[], None]) -> Iterator[None]:
    """End the process at a signal: once this block has unwound, or else when time is up.

    Args:
        say: Tell the user how things stand; called once, when a signal has ended the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = threading.Lock()
    timers: list[threading.Timer] = []

    def tell() -> None:
        if told.acquire(blocking=False):
            say()

    def say_last() -> None:
        tell()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                stream.flush()

    def leave(code: int) -> None:
        teller = threading.Thread(target=say_last, daemon=True)  # Who reads it may be stuck, too.
        teller.start()
        teller.join(0.3)
        remove_all()
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h")  # Show the cursor, which progress bars hide.
        os._exit(code)

    def end(number: int, frame: FrameType | None) -> None:
        if timers:  # It has come again: at once, then.
            leave(128 + number)
        timers.append(threading.Timer(_PATIENCE_SECONDS, leave, [128 + number]))
        timers[0].daemon = True
        timers[0].start()
        raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        if before[number] is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, end)
    try:
        yield
    except Interrupted as interruption:
        # All has unwound. The interpreter's own end takes seconds on a busy machine, with all
        # that is loaded, and nothing is left to it.
        leave(interruption.exit_code)
    except KeyboardInterrupt:
        tell()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for timer in timers:
            timer.cancel()
