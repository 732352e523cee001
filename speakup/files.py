"""Files among several programs: temporary ones, claims to a piece of work, files others write.

Temporary files and claims are locked while their maker lives. A lock belongs to the open file,
so that it goes with the process, however that ends. What is there and not locked was left by a
run that was killed, and can be removed.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from speakup.errors import ConfigError, InputError, OutputError
from speakup.result import size

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_LEFT_BEHIND = re.compile(r"\..*\.[0-9a-f]{8}\.speakup\.(part|claim)", re.DOTALL)
_ORDINARY = 0o666
"""Less the umask, the mode of any new file."""

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

ANOTHER_TEMPORARY_FOLDER = "name another temporary folder in TMPDIR"

NO_SURPRISE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""To open no link, and wait for nobody at the other end of what is no ordinary file."""

_REASONS = {
    errno.ENOENT: ("the folder does not exist", "Create it"),
    errno.ENOTDIR: ("what should be its folder is a file", None),
    errno.ENOSPC: ("the disk is full", "Free some space"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space"),
    errno.EACCES: ("no permission to write there", None),
    errno.EPERM: ("no permission to write there", None),
    errno.EROFS: ("the disk is read-only", None),
    errno.EFBIG: ("the file is too big for this disk", "Choose flac"),
    errno.ETIMEDOUT: ("another program keeps it locked", "End that program"),
    errno.EEXIST: ("it is there already", "Set `overwrite` to replace it"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", None),
    errno.EMFILE: ("too many files are open", "Raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "End some programs"),
}

_MARK = "user.speakup"

_LOCK_SECONDS = 30.0
"""How long to wait for a file that every program here locks for a moment only."""

_held: set[Path] = set()
_guard = threading.RLock()


class Temporary:
    """An empty hidden file beside the place it is to have, locked until it is there or removed.

    Nobody else can read it before it is in place. There it has the owner and the mode of what it
    replaces, or those of any new file.

    Args:
        place: Where the whole file is to appear; a link there is replaced itself.
        overwrite: Whether it may replace what is there by then.

    Attributes:
        path: Where it is now.

    Raises:
        OSError: it cannot be made there.
    """

    def __init__(self, place: Path, *, overwrite: bool = True) -> None:
        self._place, self._overwrite = place, overwrite
        self._descriptor = -1
        while True:
            self.path = _hold(_hidden(place))
            try:
                self._descriptor = os.open(self.path, _NEW, 0o600)
                _lock(self._descriptor, wait=True)
            except BaseException:
                self.remove()
                raise
            # Before it was locked, somebody who clears up may have taken it for left behind.
            if _is_at(self._descriptor, self.path):
                break
            self._close()

    def open(self) -> int:
        """Give a descriptor to read and write, which the caller closes."""
        return os.dup(self._descriptor)

    def move(self) -> None:
        """Put the file into place.

        Raises:
            FileExistsError: something has appeared there that is not to be replaced.
            OSError: it cannot be put there.
        """
        self._take_over_rights()
        if fcntl is None:
            self._close()  # Windows moves no open file.
        if self._overwrite:
            os.replace(self.path, self._place)
        else:
            _move_to_free_name(self.path, self._place)
        self._close()

    def remove(self) -> None:
        """Remove the file, unless it is in place."""
        with _guard:
            held = self.path in _held
        if held:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._close()

    def _take_over_rights(self) -> None:
        if fcntl is None:
            return
        there = None
        with contextlib.suppress(FileNotFoundError):
            there = self._place.lstat()
        if there is None or not stat.S_ISREG(there.st_mode):
            mode = _usual_mode(self._place)
        else:
            mode, own = there.st_mode & 0o777, os.fstat(self._descriptor)
            if (there.st_uid, there.st_gid) != (own.st_uid, own.st_gid):
                mode &= _give_to(self._descriptor, there)
        with contextlib.suppress(OSError):  # Not every disk has modes.
            os.fchmod(self._descriptor, mode)

    def _close(self) -> None:
        with _guard:
            _held.discard(self.path)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class TemporaryFolder:
    """A private folder in the temporary one, gone with all in it at the end of the block.

    What runs that were killed have left there goes at its beginning.

    Raises:
        OutputError: it cannot be made.
    """

    def __enter__(self) -> Path:
        parent = Path(temporary_folder())
        clear(parent)
        self._descriptor = -1
        try:
            while True:
                self.path = _hold(_hidden(parent / "speakup"))
                self.path.mkdir(0o700)
                if fcntl is None:
                    break
                self._descriptor = os.open(self.path, os.O_RDONLY)
                _lock(self._descriptor, wait=True)
                if _is_at(self._descriptor, self.path):
                    break
                os.close(self._descriptor)
        except OSError as error:
            raise output_error(error, parent, ANOTHER_TEMPORARY_FOLDER) from error
        return self.path

    def __exit__(self, *_: object) -> None:
        _remove(self.path)
        with _guard:
            _held.discard(self.path)
        if self._descriptor >= 0:
            os.close(self._descriptor)


def temporary_folder() -> str:
    """Name the folder for temporary files: the one in TMPDIR, or the system's.

    Raises:
        OutputError: there is none that can be written.
    """
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise OutputError(
            "there is no temporary folder that can be written",
            None,
            "Name one in TMPDIR, or make room in /tmp",
        ) from error


class Claim:
    """A piece of work that is ours until the end of the block; make one with `claim`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        with _guard:
            _held.add(path)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        with _guard:
            _held.discard(self._path)
        with contextlib.suppress(OSError):
            self._path.unlink()  # While it is locked, so that nobody's claim but ours goes.
        os.close(self._descriptor)


def claim(folder: Path, key: str) -> Claim | None:
    """Claim a piece of work among all that claim theirs in the folder.

    Args:
        folder: Where the claim is kept, as an empty hidden file.
        key: Eight hexadecimal digits or more that name the work.

    Returns:
        The claim, or None while another has it.

    Raises:
        OSError: no file can be made there.
    """
    path = folder / f".{key[8:]}.{key[:8]}.speakup.claim"
    flags = os.O_RDWR | os.O_CREAT | NO_SURPRISE
    if fcntl is None:  # Windows removes the file when its maker ends, however that happens.
        flags |= os.O_EXCL | getattr(os, "O_TEMPORARY", 0)
    while True:
        try:
            descriptor = os.open(path, flags, _ORDINARY)
        except (FileExistsError, PermissionError):
            if fcntl is None:
                return None
            raise
        if _lock(descriptor, wait=False) is False:
            os.close(descriptor)
            return None
        if _is_at(descriptor, path):
            return Claim(path, descriptor)
        os.close(descriptor)  # It went with its last holder, between opening and locking.


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Open a file to read and append, made if need be, while nobody else has it open like this.

    Raises:
        TimeoutError: another program has kept it locked all the time.
        OSError: it cannot be opened.
    """
    until = time.monotonic() + _LOCK_SECONDS
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | NO_SURPRISE
    while True:
        descriptor = os.open(path, flags, _ORDINARY)
        try:
            while _lock(descriptor, wait=fcntl is None) is False:
                if time.monotonic() > until:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), str(path))
                time.sleep(0.01)
            if _is_at(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def clear(folder: Path) -> None:
    """Remove the temporary files, folders and claims that killed runs have left in a folder."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if _LEFT_BEHIND.fullmatch(name)]
        for path in map(folder.joinpath, names):
            with contextlib.suppress(OSError):
                descriptor = _opened(path)
                try:
                    if _lock(descriptor, wait=False) and _is_at(descriptor, path):
                        _remove(path)
                finally:
                    os.close(descriptor)


def remove_all() -> None:
    """Remove what this process holds, because it is about to end without unwinding."""
    with _guard:
        for path in list(_held):
            _remove(path)


def output_place(path: Path) -> Path:
    """Give where an output goes: through a link to what it points at, as with any program.

    Raises:
        OutputError: what is there is no ordinary file.
        OSError: it cannot be told.
    """
    place = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError):
        mode = place.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "is a folder" if stat.S_ISDIR(mode) else "is not an ordinary file"
            raise OutputError(kind, path, "Name a file to write to")
    return place


def write_whole(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write a file that appears under its name only when it is whole.

    Args:
        path: The file.
        data: All that it is to hold.
        overwrite: Whether it may replace what is there.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        temporary = Temporary(output_place(path), overwrite=overwrite)
        try:
            with os.fdopen(temporary.open(), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.move()
        finally:
            temporary.remove()
    except OSError as error:
        raise output_error(error, path) from error


def as_name(path: str | os.PathLike[str]) -> str:
    """Give the name of a file that a caller has given.

    Raises:
        ConfigError: it is none on any system.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise ConfigError("the name holds a null character", repr(name), "Give another")
    return name


def check_free(path: Path, *, overwrite: bool) -> None:
    """See to it, before the work, that what is there is to be replaced.

    Raises:
        OutputError: it is not.
    """
    if not overwrite and os.path.lexists(path):
        raise output_error(FileExistsError(errno.EEXIST, ""), path)


def check_space(folder: Path | str, needed: float, what: str, elsewhere: str) -> None:
    """See to it, before the work, that a disk has room.

    Args:
        folder: A folder on it.
        needed: Bytes.
        what: What they are for.
        elsewhere: What to do where there is no room to be made.

    Raises:
        OutputError: it has not, or it cannot be told.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise output_error(error, folder, elsewhere) from error
    if free < needed:
        raise OutputError(
            f"too small {what}: {size(needed)} are needed, {size(free)} free",
            folder,
            f"Make room there, or {elsewhere}",
        )


def output_error(
    error: OSError, path: Path | str | None, elsewhere: str = "write elsewhere"
) -> OutputError:
    """Say for a person why something cannot be written.

    Args:
        error: What the system says.
        path: What cannot be written.
        elsewhere: What to do where nothing else helps.
    """
    unnamed = (f"cannot be written: {error.strerror or error}", None)
    problem, first = _REASONS.get(error.errno or 0, unnamed)
    remedy = elsewhere[0].upper() + elsewhere[1:] if first is None else f"{first}, or {elsewhere}"
    return OutputError(problem, path, remedy)


def unchanged(
    source: Path, then: Callable[[os.stat_result], None] | None
) -> Callable[[os.stat_result], None]:
    """Note what a file is like; give what raises where that has changed, before `then`.

    The survey and the stages each read the file, and a recorder or a download may still write it.
    Who keeps its size and sets its time back has changed its inode, or the time of that.
    """

    def state() -> tuple[int, ...] | None:
        with contextlib.suppress(OSError):
            found = source.stat()
            times = found.st_mtime_ns, found.st_ctime_ns
            return found.st_dev, found.st_ino, found.st_size, *times
        return None

    before = state()

    def settle(written: os.stat_result) -> None:
        if state() != before:
            raise InputError(
                "changed while it was read", source, "Enhance it again when it is complete"
            )
        if then is not None:
            then(written)

    return settle


def _hidden(place: Path) -> Path:
    """Give a new name beside a place by which it is known that this program made what has it."""
    # 40 characters of at most 4 bytes, so that no system finds the name too long.
    return place.with_name(f".{place.stem[:40]}.{secrets.token_hex(4)}.speakup.part")


def _hold(path: Path) -> Path:
    """Note a new name of ours before anything has it, so that a signal finds nothing unnoted."""
    with _guard:
        _held.add(path)
    return path


def _move_to_free_name(path: Path, place: Path) -> None:
    """Give a file another name, unless there is something of this name.

    Raises:
        FileExistsError: there is.
    """
    if fcntl is None:
        os.rename(path, place)  # which replaces nothing on Windows
        return
    try:
        os.link(path, place)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # FAT and the like have no links: there it is as good as a look can be.
        if os.path.lexists(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place) from None
        os.replace(path, place)
    else:
        path.unlink()


def _usual_mode(place: Path) -> int:
    """Give the mode that a new file gets there by the umask, or by what the folder prescribes."""
    path = _hidden(place)
    descriptor = os.open(path, _NEW, _ORDINARY)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        path.unlink()
        os.close(descriptor)


def _give_to(descriptor: int, owner: os.stat_result) -> int:
    """Give an open file an owner and a group as far as that is allowed; give what modes fit then.

    What one group might do with a file, another is not to.
    """
    for user in (owner.st_uid, -1):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, user, owner.st_gid)
            return 0o777
    return 0o707


def _opened(path: Path) -> int:
    """Open what is to be cleared up: a file to write, as some disks lock no others, or a folder."""
    try:
        return os.open(path, os.O_RDWR | NO_SURPRISE)
    except IsADirectoryError:
        return os.open(path, os.O_RDONLY | NO_SURPRISE)


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, as far as that goes."""
    try:
        path.unlink()
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def _lock(descriptor: int, *, wait: bool) -> bool | None:
    """Lock an open file against all other openings; tell whether it is ours now.

    None stands for a file system without locks, on which nobody can tell.
    """
    if fcntl is None:
        return None if not wait else _lock_on_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lock_on_windows(descriptor: int) -> bool:
    """Lock a byte far behind the end, which hinders nobody who reads; closing gives it back."""
    msvcrt: Any = importlib.import_module("msvcrt")
    os.lseek(descriptor, 1 << 30, os.SEEK_SET)
    with contextlib.suppress(OSError):
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def set_mark(path: Path, text: str) -> None:
    """Note something beside a file's content, where the disk can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setxattr(path, _MARK, text.encode())


def get_mark(path: Path) -> str | None:
    """Give what `set_mark` has noted; None where nothing is known."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.getxattr(path, _MARK).decode(errors="replace")
    return None
