"""Requests to the Hub: what a file is, and its bytes, going on after cuts, in a bounded time.

The session, its headers and its reading of errors are those of the Hub's own library, and with
them HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and proxies. The library's own download starts afresh in
every process, tries for minutes, and for ever with a server that cuts and cannot resume.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from speakup import __version__
from speakup.errors import ModelError
from speakup.files import NO_SURPRISE

if TYPE_CHECKING:
    from types import ModuleType

FileProgress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there, and the bytes in all or None."""

_TRIES = 3
_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 10.0
_MOST_REQUESTS = 200
_PASSING_STATUS = (408, 429, 500, 502, 503, 504)
_PASSING = ("TimeoutException", "NetworkError", "RemoteProtocolError", "Cut")


class BadAnswer(Exception):
    """The Hub answered, and what it gives is not what it must be."""


class NoHub(Exception):
    """Something else than a Hub answers, such as a network's log-in page."""


class Cut(Exception):
    """The Hub sent less of a file than it had announced; it may be asked for the rest."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository on the Hub.

    Attributes:
        repository: "org/name".
        revision: A branch, a tag or a 40-digit commit.
        name: Its path in the repository.
        bytes: The size it must have, or None.
        sha256: The hash it must have, or None; then the Hub's own, where it gives one, counts.
    """

    repository: str
    revision: str
    name: str
    bytes: int | None = None
    sha256: str | None = None

    @property
    def origin(self) -> str:
        """Say where it comes from, in words."""
        what = f"{self.name} ({in_megabytes(self.bytes)})" if self.bytes else self.name
        return f"{what} of {endpoint()}/{self.repository} at {self.revision}"


@dataclass(frozen=True)
class Offer:
    """What the Hub says of a file before it sends it; `commit` and `etag` are safe as names."""

    commit: str
    etag: str
    bytes: int | None


def library() -> ModuleType:
    """Give the Hub's library, which reads its environment once, with its telemetry off.

    Raises:
        ModelError: its environment holds what it cannot read.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ValueError as error:  # a setting such as HF_HUB_DOWNLOAD_TIMEOUT=soon
        raise ModelError(f"cannot be read ({error})", "a setting that begins with HF_") from error
    # Who imported it earlier may have left it on; then it also asks the Hub which programs call.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


def endpoint() -> str:
    """Give the Hub's address, as HF_ENDPOINT says."""
    return str(library().constants.ENDPOINT)


def is_offline() -> bool:
    """Tell whether HF_HUB_OFFLINE forbids requests."""
    return bool(library().constants.HF_HUB_OFFLINE)


def in_megabytes(number: int | None) -> str:
    """Write a size."""
    if number is None:
        return "of unknown size"
    return f"{number / 1e6:.1f} MB" if number >= 100_000 else f"{number / 1e3:.1f} kB"


def ask(file: RemoteFile) -> Offer:
    """Ask what a file is, a few times if need be; whatever is wrong is raised as it comes."""
    hub, timeout = library(), library().constants.HF_HUB_ETAG_TIMEOUT
    for tries in range(1, _TRIES + 1):
        try:
            found = hub.get_hf_file_metadata(_url(file), timeout=timeout, headers=_headers())
            break
        except Exception as error:
            if tries == _TRIES or not _is_passing(error):
                raise
            _wait(error, tries)
    commit, etag = found.commit_hash or "", found.etag or ""
    if not commit or not etag:
        raise NoHub(f"neither commit nor ETag are given for {file.name}")
    # Both become names of files: nothing that leads out of their folder.
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise BadAnswer(f"the Hub names no commit for {file.name}")
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag):  # none of the Hub's own
        etag = hashlib.sha1(f"{file.name} {etag}".encode()).hexdigest()
    return Offer(commit, etag, found.size)


def receive(file: RemoteFile, wanted: int | None, partial: Path, tell: FileProgress) -> None:
    """Receive a file, going on after cuts as long as every few requests bring something new.

    Args:
        file: Which.
        wanted: Its size, or None.
        partial: Where to put it; what is there already is not asked for again.
        tell: Told how far it is.

    Raises:
        BadAnswer: what comes is of another size.
        Exception: of the Hub's library, of its HTTP library, or of the disk.
    """
    furthest, tries = bytes_of(partial), 0
    if wanted is not None and furthest > wanted:
        partial.unlink()
        furthest = 0
    for _ in range(_MOST_REQUESTS):
        try:
            return _receive_once(file, wanted, partial, tell)
        except Exception as error:
            if not _is_passing(error):
                raise
            now = bytes_of(partial)
            tries = 1 if now > furthest else tries + 1
            furthest = max(furthest, now)
            if tries >= _TRIES:
                raise
            _wait(error, tries)
    raise Cut(f"the Hub ended the connection {_MOST_REQUESTS} times")


def bytes_of(path: Path) -> int:
    """Give a file's size; one that is not there has none."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _receive_once(file: RemoteFile, wanted: int | None, partial: Path, tell: FileProgress) -> None:
    """Receive what is missing of a file in one request."""
    library()
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        get_session,
        hf_raise_for_status,
    )

    have = bytes_of(partial)
    if wanted is not None and have == wanted:
        return
    headers = _headers() | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    # The session follows redirects, and takes the token to no other host.
    with get_session().stream("GET", _url(file), headers=headers, timeout=timeout) as answer:
        if have and answer.status_code == 416:
            partial.unlink()
            raise Cut("the Hub has no such part of the file")
        hf_raise_for_status(answer)
        start, total = _extent(answer)
        if start not in (0, have):
            partial.unlink()
            raise Cut("the Hub sent another part of the file than it was asked for")
        if wanted is not None and total is not None and total != wanted:
            raise BadAnswer(f"has {total} bytes instead of {wanted}")
        expected = wanted if wanted is not None else total
        flags = os.O_RDWR | os.O_CREAT | NO_SURPRISE | getattr(os, "O_BINARY", 0)
        with open(os.open(partial, flags, 0o666), "r+b") as out:
            out.seek(start)
            out.truncate()
            done = _copy(answer, out, start, expected, lambda now: tell(file.name, now, expected))
    if expected is not None and done < expected:
        raise Cut(f"the Hub sent {done} of {expected} bytes")


def _copy(
    answer: Any, out: IO[bytes], start: int, expected: int | None, tell: Callable[[int], None]
) -> int:
    done = start
    tell(done)
    # Pieces as they come: what waits to fill a larger one would be lost in a cut.
    for chunk in answer.iter_bytes():
        done += len(chunk)
        if expected is not None and done > expected:
            raise BadAnswer(f"has more than {expected} bytes")
        out.write(chunk)
        tell(done)
    return done


def _extent(answer: Any) -> tuple[int, int | None]:
    """Give from which byte on an answer goes, and how long the whole file is, if that is said."""
    if answer.status_code == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match is None:
            return -1, None
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    coded = answer.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdigit() and not coded else None


def _is_passing(error: Exception) -> bool:
    """Tell whether another try may help."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    # The Hub's library has changed its HTTP library twice; the names have stayed.
    names = {kind.__name__ for kind in type(error).__mro__}
    return status in _PASSING_STATUS or not names.isdisjoint(_PASSING)


def _wait(error: Exception, tries: int) -> None:
    """Wait a little before the next request, or as long as the Hub wishes if that is bearable."""
    answer = getattr(error, "response", None)
    wish = "" if answer is None else answer.headers.get("Retry-After", "")
    seconds = float(wish) if wish.isdigit() else _WAIT_SECONDS * 2 ** (tries - 1)
    if seconds > _LONGEST_WAIT_SECONDS:
        raise error
    time.sleep(seconds)


def _url(file: RemoteFile) -> str:
    return str(library().hf_hub_url(file.repository, file.name, revision=file.revision))


def _headers() -> dict[str, str]:
    """Give the headers of our requests: the user's token, and nothing about the machine."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    return dict(build_hf_headers()) | {"user-agent": f"speakup/{__version__}"}
