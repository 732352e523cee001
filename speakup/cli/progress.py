"""How far the recordings are, drawn on a terminal or said now and then."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from speakup.cli.terminal import Terminal, printable, times
from speakup.result import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PARTS = {"open": (0.0, 0.0), "survey": (0.0, 0.13), "enhance": (0.13, 0.75), "write": (0.93, 1.0)}
"""Which part of the time each step takes, roughly; before writing, the gain is settled."""

_LINE_EVERY_SECONDS = 30.0


@contextlib.contextmanager
def track(terminal: Terminal, files: int) -> Iterator[Tracker]:
    """Show how far a number of recordings are, until the end of the block."""
    if not terminal.shows_progress:
        yield Tracker(files, lambda overview: None)
    elif not terminal.console.is_terminal:
        yield Tracker(files, _Lines(terminal).show)
    else:
        with terminal.bars() as live:
            yield Tracker(files, _Bars(live, files).show)


class Step:
    """How far one recording is.

    Attributes:
        name: What to call it.
        doing: What is being done.
        share: How much of it is done, 0 to 1.
        seconds: Its length, 0 while unknown.
        started: When, on the monotonic clock.
        ended: Whether it is over.
    """

    def __init__(self, name: str) -> None:
        self.name, self.doing = name, "open"
        self.share, self.seconds = 0.0, 0.0
        self.started = time.monotonic()
        self.ended = False


class Tracker:
    """Keeps account of several recordings at once, and has it shown.

    Args:
        files: How many there are.
        show: Called with the overview whenever it has changed.
    """

    def __init__(self, files: int, show: Callable[[Overview], None]) -> None:
        self._overview = Overview(files)
        self._show = show
        self._lock = threading.Lock()

    def tell(self, name: str, doing: str, done: float, total: float | None) -> None:
        """Note how far a recording is; from any thread."""
        with self._lock:
            step = self._overview.step(name)
            first, last = _PARTS.get(doing, (step.share, step.share))
            step.doing, step.seconds = doing, total or step.seconds
            within = min(1.0, done / step.seconds) if step.seconds else 0.0
            step.share = max(step.share, first + (last - first) * within)
            self._show(self._overview)

    def end(self, name: str, seconds: float) -> None:
        """Note that a recording is over, and how much audio it was."""
        with self._lock:
            step = self._overview.step(name)
            step.ended, step.share, step.seconds = True, 1.0, seconds
            self._show(self._overview)
            self._overview.close(name)


class Overview:
    """How far the recordings are: those at work by name, the others by number."""

    def __init__(self, files: int) -> None:
        self.files, self.ended = files, 0
        self.working: dict[str, Step] = {}
        self.last: Step | None = None
        self.started = time.monotonic()
        self._seconds = 0.0

    def step(self, name: str) -> Step:
        self.last = self.working.setdefault(name, Step(name))
        return self.last

    def close(self, name: str) -> None:
        step = self.working.pop(name)
        self.ended, self._seconds = self.ended + 1, self._seconds + step.seconds

    @property
    def share(self) -> float:
        """How many of the files are done, 0 to 1."""
        return (self.ended + sum(step.share for step in self.working.values())) / self.files

    @property
    def seconds(self) -> float:
        """Seconds of audio done."""
        return self._seconds + sum(step.share * step.seconds for step in self.working.values())


def _pace(share: float, seconds: float, started: float) -> tuple[str, str]:
    """Say how fast something goes, and how long it will take."""
    elapsed = time.monotonic() - started
    if share <= 0.0 or elapsed < 0.5:
        return "", ""
    left = elapsed * (1.0 - share) / share
    return times(seconds / elapsed) if seconds else "", f"{duration(left)} left"


class _Bars:
    """One bar for each recording at work, and one for all of them."""

    def __init__(self, live: Progress, files: int) -> None:
        self._live = live
        self._tasks: dict[str, TaskID] = {}
        self._all: TaskID | None = None
        if files > 1:
            self._all = live.add_task(f"0 of {files} files", total=1.0, speed="", left="")

    def show(self, overview: Overview) -> None:
        step = overview.last
        assert step is not None
        if step.name not in self._tasks:
            name = printable(os.path.basename(step.name))
            self._tasks[step.name] = self._live.add_task(name, total=1.0, speed="", left="")
        speed, left = _pace(step.share, step.share * step.seconds, step.started)
        task = self._tasks[step.name]
        self._live.update(task, completed=step.share, speed=speed, left=left)
        if self._all is not None:
            speed, left = _pace(overview.share, overview.seconds, overview.started)
            done = overview.ended + step.ended
            text = f"{done} of {overview.files} files"
            self._live.update(
                self._all, completed=overview.share, description=text, speed=speed, left=left
            )
        if step.ended:
            self._live.remove_task(self._tasks.pop(step.name))


class _Lines:
    """A line now and then, where there is no terminal to draw on."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._said = time.monotonic()

    def show(self, overview: Overview) -> None:
        step = overview.last
        if step is None or step.ended or time.monotonic() - self._said < _LINE_EVERY_SECONDS:
            return
        self._said = time.monotonic()
        pace = _pace(step.share, step.share * step.seconds, step.started)
        words = [f"{100 * step.share:.0f} %", *pace]
        self._terminal.say(f"{step.name}: {step.doing}, ", ", ".join(filter(None, words)))
