"""What is done in a folder of outputs: an append-only file of one JSON object a line.

A line is written when an output is whole and before it appears under its name, with the size and
time that it will have there. So whatever is killed when, an output that exists is one of ours,
and of known origin, exactly where a line describes it; a line whose output never appeared
describes nothing, and does no harm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from speakup import __version__
from speakup.config import Config
from speakup.errors import ConfigError
from speakup.files import NO_SURPRISE, Claim, claim, locked

JOURNAL_FILE = ".speakup-journal.jsonl"
_VERSION = 1

_NOT_IN_THE_SOUND = (
    *("quality", "preset", "denoiser", "upsampler", "accept_license", "offline"),
    *("device", "threads", "batch_size"),
)
"""Settings without a part in what comes out, or, of the models, named with their revisions."""

_TAIL = 200
"""Bytes by which a journal is known again: in its lines there are times, in nanoseconds."""

_LONGEST_WORD = 40
"""Characters of something odd that a message repeats."""

_COARSE_NS = 10_000_000
"""Some disks keep times in steps of 10 ms (exFAT), 1 s or 2 s (FAT): of which these are part."""

Standing = Literal["missing", "finished", "outdated", "altered", "foreign"]
"""An output is not there; made from this very input with these settings; made by an earlier run
from what the input was, or with other settings; made by a run, and changed since; or made by
something else, or from another recording."""


@dataclass(frozen=True)
class _Line:
    """One output, as it was when it was made."""

    output: str
    output_size: int
    output_mtime_ns: int
    input: str
    input_size: int
    input_mtime_ns: int
    settings: str
    models: list[str]
    overwrite: bool


class Journal:
    """The journal of one folder of outputs, for one run.

    Args:
        folder: The folder; it need not exist yet.
        settings: A digest of all that outputs depend on, from `settings_digest`.
        models: The models' names and revisions.
        overwrite: Whether this run replaces whatever is there.

    Raises:
        ConfigError: a newer version of speakup, or something else, has written it, or it is no
            ordinary file.
    """

    def __init__(
        self, folder: Path, settings: str, models: Sequence[str], *, overwrite: bool = False
    ) -> None:
        self.folder = folder
        self.path = folder / JOURNAL_FILE
        self._settings, self._models, self._overwrite = settings, list(models), overwrite
        self._guard = threading.Lock()
        self._lines: dict[str, list[_Line]]
        self._read: int
        self._tail: bytes
        self._forget()
        self.refresh()

    def refresh(self) -> None:
        """Read what has been written since the last time, by whichever run."""
        with self._guard:
            self._read_on()

    def standing(self, source: Path, target: Path) -> Standing:
        """Tell what is in the place of an output."""
        try:
            there = target.stat()
        except OSError:
            return "missing"
        lines = self._lines.get(self._below(target), [])
        line = next((line for line in reversed(lines) if _describes(line, there)), None)
        if line is None:
            return "altered" if lines else "foreign"
        with contextlib.suppress(OSError):
            found = source.stat()
            same = (line.input_size, line.input_mtime_ns) == (found.st_size, found.st_mtime_ns)
            if same and line.settings == self._settings:
                return "finished"
        return "outdated" if line.input == self._origin(source) else "foreign"

    def goes_on(self, target: Path) -> bool:
        """Tell whether an output was made by a run like this that was broken off.

        A run that overwrites everything does all again; but what it did before it was killed, it
        need not do twice.
        """
        lines = self._lines.get(self._below(target), [])
        return bool(lines) and lines[-1].overwrite

    def claim(self, target: Path) -> Claim | None:
        """Claim the work on an output; None while another run is at it.

        Raises:
            OSError: the folder takes no file.
        """
        return claim(self.folder, hashlib.sha256(os.fsencode(self._below(target))).hexdigest()[:24])

    def record(
        self, source: Path, state: os.stat_result, target: Path, written: os.stat_result
    ) -> None:
        """Note that an output is whole, before it appears.

        Args:
            source: The recording.
            state: Its size and time when it was read.
            target: The output.
            written: The size and time that it has.

        Raises:
            OSError: the journal cannot be written.
            ConfigError: it is no ordinary file any more.
        """
        line = _Line(
            output=self._below(target),
            output_size=written.st_size,
            output_mtime_ns=written.st_mtime_ns,
            input=self._origin(source),
            input_size=state.st_size,
            input_mtime_ns=state.st_mtime_ns,
            settings=self._settings,
            models=self._models,
            overwrite=self._overwrite,
        )
        self._append({"event": "file", **dataclasses.asdict(line)})

    def end(self) -> None:
        """Note that a run is through, where that is to be known: none goes on from it.

        Raises:
            OSError: the journal cannot be written.
            ConfigError: it is no ordinary file any more, or something else has written it.
        """
        self.refresh()
        if any(lines[-1].overwrite for lines in self._lines.values()):
            self._append({"event": "end"})

    def _read_on(self) -> None:
        try:
            _check_ordinary(self.path)
            data = _read_from(self.path, max(0, self._read - len(self._tail)))
            if not data.startswith(self._tail):  # It is another file than the last time.
                self._forget()
                data = _read_from(self.path, 0)
        except OSError:
            return
        fresh = data[len(self._tail) :]
        whole = fresh[: fresh.rfind(b"\n") + 1]  # Behind it is what is being written, or torn off.
        self._read += len(whole)
        self._tail = (self._tail + whole)[-_TAIL:]
        for event in _events(whole):
            self._take(event)

    def _append(self, event: dict[str, Any]) -> None:
        with contextlib.suppress(FileNotFoundError):
            _check_ordinary(self.path)
        with locked(self.path) as descriptor:
            size = os.fstat(descriptor).st_size
            text = json.dumps(event) + "\n"
            if size == 0:
                text = json.dumps({"event": "journal", "version": _VERSION}) + "\n" + text
            else:
                os.lseek(descriptor, size - 1, os.SEEK_SET)
                if os.read(descriptor, 1) != b"\n":  # A killed run's line is torn off here.
                    text = "\n" + text
            rest = text.encode("ascii")
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)

    def _forget(self) -> None:
        self._read, self._tail = 0, b""
        self._lines = {}

    def _take(self, event: dict[str, Any]) -> None:
        if event.get("event") == "journal":
            _check_version(event.get("version"), self.path)
        if event.get("event") == "end":
            for lines in self._lines.values():
                lines[-1] = dataclasses.replace(lines[-1], overwrite=False)
        if event.get("event") == "file" and (line := _line(event)) is not None:
            self._lines.setdefault(line.output, []).append(line)

    def _below(self, target: Path) -> str:
        return os.path.relpath(target, self.folder).replace(os.sep, "/")

    def _origin(self, source: Path) -> str:
        """Give a recording's path from here: it holds when both are moved together."""
        real = os.path.realpath(source)
        try:
            return os.path.relpath(real, os.path.realpath(self.folder)).replace(os.sep, "/")
        except ValueError:  # on another drive
            return real


def settings_digest(config: Config, models: Sequence[str]) -> str:
    """Digest all that an output depends on but its recording: settings, models and version."""
    settings = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in _NOT_IN_THE_SOUND
    }
    told = json.dumps([__version__, settings, list(models)], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def outputs_in(folder: Path) -> set[str]:
    """List the outputs that a folder's journal, if it has one, tells of, by their real paths."""
    path = folder / JOURNAL_FILE
    try:
        _check_ordinary(path)
        data = _read_from(path, 0)
    except (OSError, ConfigError):  # Who is to write there says what is wrong with it.
        return set()
    real = os.path.realpath(folder)
    outputs = (event.get("output") for event in _events(data))
    return {os.path.normpath(os.path.join(real, name)) for name in outputs if isinstance(name, str)}


def outputs_above(folder: Path) -> set[str]:
    """List the outputs that the journals of the folders above tell of, by their real paths."""
    above = Path(os.path.realpath(folder)).parents
    return {output for parent in above for output in outputs_in(parent)}


def _check_ordinary(path: Path) -> None:
    """See to it that a journal is an ordinary file, before it is opened.

    To open a FIFO waits for who writes into it, and to open a device may do anything. A link is
    none either: what is appended must be in this folder, where other runs look for it.

    Raises:
        ConfigError: it is something else.
        OSError: there is none, or it cannot be told.
    """
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a link",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    raise ConfigError(
        f"is {kinds.get(stat.S_IFMT(mode), 'something else')}, and a journal is an ordinary file",
        path,
        "Move it away, or write into another folder",
    )


def _read_from(path: Path, start: int) -> bytes:
    """Read an ordinary file from a place on; what has just become something else reads as empty.

    Raises:
        OSError: it cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | NO_SURPRISE
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return b""
        file.seek(start)
        return file.read()


def _check_version(version: object, path: Path) -> None:
    """See to it that this speakup knows a journal of this version.

    Raises:
        ConfigError: it does not.
    """
    if type(version) is int and version == _VERSION:  # True == 1, too.
        return
    if type(version) is int and _VERSION < version < 10**6:
        raise ConfigError(
            f"is of version {version}, and this speakup knows {_VERSION}",
            path,
            "Update speakup, or write into another folder",
        )
    told = json.dumps(version)
    if len(told) > _LONGEST_WORD:
        told = told[:_LONGEST_WORD] + "..."
    raise ConfigError(
        f"no speakup has written it: its version is {told}, where there is a number from 1 on",
        path,
        "Move it away (what is in the folder is then kept, as somebody's), or write into "
        "another folder",
    )


def _events(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the objects of all lines that hold one; others were torn off, or are not ours."""
    for text in data.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(text)
            if isinstance(event, dict):
                yield event


def _line(event: dict[str, Any]) -> _Line | None:
    values = {field.name: event.get(field.name) for field in dataclasses.fields(_Line)}
    kinds = {"output": str, "input": str, "settings": str, "models": list, "overwrite": bool}
    if all(isinstance(value, kinds.get(name, int)) for name, value in values.items()):
        return _Line(**values)  # type: ignore[arg-type]
    return None


def _describes(line: _Line, there: os.stat_result) -> bool:
    """Tell whether a file is still as it was made, as far as its disk can tell times apart."""
    if line.output_size != there.st_size:
        return False
    if line.output_mtime_ns == there.st_mtime_ns:
        return True
    coarse = there.st_mtime_ns % _COARSE_NS == 0
    return coarse and abs(line.output_mtime_ns - there.st_mtime_ns) <= 2_000_000_000
