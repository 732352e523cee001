"""How far the recordings are, drawn on a terminal or said now and then."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from speakup.cli.terminal import Terminal, printable, times
from speakup.result import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PARTS = {"open": (0.0, 0.0), "survey": (0.0, 0.13), "enhance": (0.13, 0.75), "write": (0.93, 1.0)}
"""Which part of the time each step takes, roughly; before writing, the gain is settled."""

_LINE_EVERY_SECONDS = 30.0

_UNKNOWN: dict[str, Any] = {"doing": "", "speed": "", "left": ""}


@contextlib.contextmanager
def track(terminal: Terminal, sizes: Mapping[str, float]) -> Iterator[Tracker]:
    """Show how far recordings are, until the end of the block; their sizes are by name."""
    if not terminal.shows_progress:
        yield Tracker(sizes, lambda overview: None)
    elif not terminal.console.is_terminal:
        yield Tracker(sizes, _Lines(terminal).show)
    else:
        with terminal.bars(doing=True) as live:
            yield Tracker(sizes, _Bars(live, len(sizes)).show)


class Step:
    """How far one recording is.

    Attributes:
        name: What to call it.
        doing: What is being done.
        share: How much of it is done, 0 to 1.
        seconds: Its length, 0 while unknown.
        size: Its part in all the work, in any unit.
        started: When, on the monotonic clock.
        ended: Whether it is over.
    """

    def __init__(self, name: str, size: float) -> None:
        self.name, self.doing, self.size = name, "open", size
        self.share, self.seconds = 0.0, 0.0
        self.started = time.monotonic()
        self.ended = False


class Tracker:
    """Keeps account of several recordings at once, and has it shown.

    Args:
        sizes: Of each by its name, in any unit: the longer ones count for more.
        show: Called with the overview whenever it has changed.
    """

    def __init__(self, sizes: Mapping[str, float], show: Callable[[Overview], None]) -> None:
        self._overview = Overview(sizes)
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

    def end(self, name: str, seconds: float, *, worked: bool = True) -> None:
        """Note that a recording is over, how much audio it was, and whether it took all the work.

        What was skipped, or failed, took less: the rest of it is no longer to be done.
        """
        with self._lock:
            step = self._overview.step(name)
            step.ended, step.seconds = True, seconds
            if worked:
                step.share = 1.0
            self._overview.close(name)
            self._show(self._overview)


class Overview:
    """How far the recordings are: those at work by name, the others by number."""

    def __init__(self, sizes: Mapping[str, float]) -> None:
        self.files, self.ended = len(sizes), 0
        self.working: dict[str, Step] = {}
        self.last: Step | None = None
        self.started = time.monotonic()
        self._sizes = sizes
        self._size, self._size_done = sum(sizes.values()), 0.0
        self._seconds = 0.0

    def step(self, name: str) -> Step:
        self.last = self.working.setdefault(name, Step(name, self._sizes.get(name, 0.0)))
        return self.last

    def close(self, name: str) -> None:
        step = self.working.pop(name)
        self.ended, self._seconds = self.ended + 1, self._seconds + step.share * step.seconds
        self._size -= (1.0 - step.share) * step.size
        self._size_done += step.share * step.size

    @property
    def share(self) -> float:
        """How much of the work is done, 0 to 1."""
        done = self._size_done + sum(step.share * step.size for step in self.working.values())
        return done / self._size if self._size > 0.0 else self.ended / self.files

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
            self._all = live.add_task(f"0 of {files} files", total=1.0, **_UNKNOWN)

    def show(self, overview: Overview) -> None:
        step = overview.last
        assert step is not None
        if step.ended:
            if step.name in self._tasks:
                self._live.remove_task(self._tasks.pop(step.name))
        else:
            self._show_step(step)
        if self._all is not None:
            speed, left = _pace(overview.share, overview.seconds, overview.started)
            text = f"{overview.ended} of {overview.files} files"
            self._live.update(
                self._all, completed=overview.share, description=text, speed=speed, left=left
            )

    def _show_step(self, step: Step) -> None:
        if step.name not in self._tasks:
            name = printable(os.path.basename(step.name))
            self._tasks[step.name] = self._live.add_task(name, total=1.0, **_UNKNOWN)
        speed, left = _pace(step.share, step.share * step.seconds, step.started)
        task = self._tasks[step.name]
        self._live.update(task, completed=step.share, doing=step.doing, speed=speed, left=left)


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
        if overview.files > 1:
            pace = _pace(overview.share, overview.seconds, overview.started)
            words = [f"{100 * overview.share:.0f} %", *pace]
            counter = f"{overview.ended} of {overview.files} files are done, "
            self._terminal.say(counter, ", ".join(filter(None, words)))
