"""Requests to the Hub: what a file is, and its bytes, going on after cuts, within bounds.

The session, its headers and its reading of errors are those of the Hub's own library, and with
them HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and proxies. Its `hf_hub_download` is not used: it
compares sizes when everything is on the disk, unpacks what was packed unasked, waits for ever for a
server that sends a byte now and then, or that cuts and cannot resume, and starts afresh in each
process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
_MOST_REDIRECTS = 5
_PATIENCE = 3
"""How many of the HTTP library's time limits one wait may take: name, connection, first byte."""
_LEAST_BYTES_PER_SECOND = 1_000
MOST_BYTES = 1 << 30
"""Of any file that is not pinned; the largest of those that are has a ninth of that."""
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""Of a file's content, by which the Hub names it: git's of a small file, SHA-256 of a large one."""
_PASSING_STATUS = (408, 429, 500, 502, 503, 504)
_PASSING = ("TimeoutException", "NetworkError", "RemoteProtocolError", "Cut")


class BadAnswer(Exception):
    """The Hub answered, and what it gives is not what it must be."""


class NoHub(Exception):
    """Something else than a Hub answers, such as a network's log-in page."""


class Cut(Exception):
    """The Hub sent less of a file than it had announced; it may be asked for the rest."""


class Slow(Cut):
    """The Hub sends next to nothing, though it does send."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository on the Hub.

    Attributes:
        repository: "org/name".
        revision: A branch, a tag or a 40-digit commit.
        name: Its path in the repository.
        bytes: The size it must have, or None.
        sha256: The hash it must have, or None; then the Hub's own, where it gives one, counts.
        most: What it may have, whatever the Hub says.
    """

    repository: str
    revision: str
    name: str
    bytes: int | None = None
    sha256: str | None = None
    most: int = MOST_BYTES

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
    timeout = library().constants.HF_HUB_ETAG_TIMEOUT
    for tries in range(1, _TRIES + 1):
        try:
            with _answered("HEAD", file, {}, timeout) as (answer, _):
                told = answer.headers
            break
        except Exception as error:
            if tries == _TRIES or not _is_passing(error):
                raise
            _wait(error, tries)
    commit = told.get("X-Repo-Commit", "")
    etag = (told.get("X-Linked-Etag") or told.get("ETag", "")).removeprefix("W/").strip('"')
    size = told.get("X-Linked-Size") or ("" if "Location" in told else told.get("Content-Length"))
    if not commit or not etag:
        raise NoHub(f"neither commit nor ETag are given for {file.name}")
    # Both become names of files: nothing that leads out of their folder.
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise BadAnswer(f"the Hub names no commit for {file.name}")
    if not HASH.fullmatch(etag):  # none of the Hub's own
        etag = "etag-" + hashlib.sha256(f"{file.name} {etag}".encode()).hexdigest()
    number = int(size) if size and re.fullmatch(r"[0-9]{1,15}", size) else None
    return Offer(commit, etag, number)


def receive(file: RemoteFile, wanted: int | None, partial: Path, tell: FileProgress) -> None:
    """Receive a file, going on after cuts as long as every few requests bring something new.

    Args:
        file: Which.
        wanted: Its size, or None; then no more than the file may have.
        partial: Where to put it; what is there already is not asked for again.
        tell: Told how far it is.

    Raises:
        BadAnswer: what comes is of another size, or packed.
        Exception: of the Hub's library, of its HTTP library, or of the disk.
    """
    furthest, tries = bytes_of(partial), 0
    if furthest > (file.most if wanted is None else wanted):
        partial.unlink()
        furthest = 0
    for _ in range(_MOST_REQUESTS):
        try:
            return _receive_once(file, wanted, partial, tell)
        except Exception as error:
            if not _is_passing(error):
                raise
            now = bytes_of(partial)
            tries = 1 if now > furthest and not isinstance(error, Slow) else tries + 1
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
    have = bytes_of(partial)
    if wanted is not None and have == wanted:
        return
    part = {"Range": f"bytes={have}-"} if have else {}
    timeout = library().constants.HF_HUB_DOWNLOAD_TIMEOUT
    with _answered("GET", file, part, timeout) as (answer, pieces):
        if have and answer.status_code == 416:
            partial.unlink()
            raise Cut("the Hub has no such part of the file")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise BadAnswer("comes packed, unasked")
        start, total = _extent(answer)
        if start not in (0, have):
            partial.unlink()
            raise Cut("the Hub sent another part of the file than it was asked for")
        if wanted is not None and total is not None and total != wanted:
            raise BadAnswer(f"has {total} bytes instead of {wanted}")
        expected = wanted if wanted is not None else total
        most = min(file.most, expected or file.most)
        flags = os.O_RDWR | os.O_CREAT | NO_SURPRISE | getattr(os, "O_BINARY", 0)
        with open(os.open(partial, flags, 0o666), "r+b") as out:
            out.seek(start)
            out.truncate()
            tell(file.name, start, expected)
            done = start
            for piece in _kept_up(pieces, timeout):
                done += len(piece)
                if done > most:
                    raise BadAnswer(f"has more than {most} bytes")
                out.write(piece)
                tell(file.name, done, expected)
    if expected is not None and done < expected:
        raise Cut(f"the Hub sent {done} of {expected} bytes")


def _kept_up(pieces: Iterator[bytes], timeout: float) -> Iterator[bytes]:
    """Yield pieces as they come, as long as they keep up a pace.

    Pieces as they come: what waits to fill a larger one would be lost in a cut.

    Raises:
        Slow: they do not.
    """
    came, began = 0, time.monotonic()
    for piece in pieces:
        yield piece
        came, passed = came + len(piece), time.monotonic() - began
        if passed > timeout:
            if came < passed * _LEAST_BYTES_PER_SECOND:
                raise Slow(f"{came} bytes in {passed:.0f} s")
            came, began = 0, time.monotonic()


@contextlib.contextmanager
def _answered(
    method: str, file: RemoteFile, more: Mapping[str, str], timeout: float
) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """Give an answer and the pieces of its body, as they come over the line.

    Raises:
        Exception: it is a refusal, as the Hub's library says it, or does not come.
    """
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    headers = {**_headers(), "Accept-Encoding": "identity", **more}
    with contextlib.closing(_drawn(_exchange(method, _url(file), headers, timeout), timeout)) as it:
        answer = next(it)
        if answer.status_code >= 400 and not (more and answer.status_code == 416):
            # The body of a refusal may be endless, too; the library reads what it is given.
            hf_raise_for_status(
                type(answer)(answer.status_code, headers=_plain(answer), request=answer.request)
            )
        yield answer, it


def _plain(answer: Any) -> dict[str, str]:
    body = ("content-length", "content-encoding", "transfer-encoding")
    return {name: value for name, value in answer.headers.items() if name.lower() not in body}


def _exchange(
    method: str, url: str, headers: dict[str, str], timeout: float
) -> Generator[Any, None, None]:
    """Yield an answer, and then its body in pieces; redirects, whose bodies nobody reads, lead on.

    The HTTP library takes the token to no other host. A HEAD ends where a redirect leads to one.
    """
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    session = get_session()
    request = session.build_request(method, url, headers=headers, timeout=timeout)
    for _ in range(_MOST_REDIRECTS):
        answer = session.send(request, stream=True, follow_redirects=False)
        with contextlib.closing(answer):
            onward = answer.next_request
            elsewhere = onward is not None and onward.url.host != request.url.host
            if onward is None or (method == "HEAD" and elsewhere):
                yield answer
                yield from answer.iter_raw() if method == "GET" else ()
                return
        request = onward
    raise NoHub(f"{_MOST_REDIRECTS} redirects, and no answer")


def _drawn(source: Generator[Any, None, None], timeout: float) -> Generator[Any, None, None]:
    """Yield what a thread of its own draws, and wait for none of it longer than we want to.

    The time limits of the HTTP library begin anew with each byte that comes.

    Raises:
        Slow: nothing comes.
        Exception: what the source raises.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=4)
    left = threading.Event()

    def hand(item: tuple[bool, Any]) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(item, timeout=0.1)

    def draw() -> None:
        try:
            with contextlib.closing(source):
                for item in source:
                    hand((True, item))
                    if left.is_set():
                        return
            hand((False, None))
        except BaseException as error:
            hand((False, error))

    threading.Thread(target=draw, daemon=True).start()
    try:
        while True:
            try:
                more, item = ready.get(timeout=_PATIENCE * timeout)
            except queue.Empty:
                raise Slow(f"nothing in {_PATIENCE * timeout:g} s") from None
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        left.set()


def _extent(answer: Any) -> tuple[int, int | None]:
    """Give from which byte on an answer goes, and how long the whole file is, if that is said."""
    if answer.status_code == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match is None:
            return -1, None
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


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
