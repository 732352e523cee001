"""How far downloads are: a bar for each file on a terminal, and elsewhere nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from speakup.cli.terminal import Terminal, printable
from speakup.result import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from speakup.hub.client import FileProgress


@contextlib.contextmanager
def show_downloads(terminal: Terminal) -> Iterator[FileProgress]:
    """Give what is to be told how far each file is, until the end of the block."""
    with terminal.bars() as live:
        yield _Bars(live).tell


class _Bars:
    def __init__(self, live: Progress) -> None:
        self._live = live
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, int]] = {}

    def tell(self, name: str, done: int, total: int | None) -> None:
        if name not in self._tasks:
            text = printable(name.rpartition("/")[2])
            self._tasks[name] = self._live.add_task(text, total=total, speed="", left="")
            self._began[name] = time.monotonic(), done
        began, had = self._began[name]
        elapsed = time.monotonic() - began
        speed = left = ""
        if elapsed > 0.5 and done > had:
            pace = (done - had) / elapsed
            speed = f"{pace / 1e6:.1f} MB/s"
            left = "" if total is None else f"{duration((total - done) / pace)} left"
        task = self._tasks[name]
        self._live.update(task, completed=done, total=total, speed=speed, left=left)
        if total is not None and done >= total:
            self._live.remove_task(self._tasks.pop(name))
