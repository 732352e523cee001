"""A Hub on this machine that speaks the resolve protocol, and behaves as badly as it is told to.

Weights are served as the Hub serves large files: a redirect that carries size and SHA-256, to
another host that sends the bytes. Small files come from the Hub itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Files = dict[str, bytes]
SMALL = (".json", ".md")


@dataclass
class Trouble:
    """What goes wrong with requests for a path.

    Attributes:
        where: A part of the path.
        method: The method, or "" for any.
        repository: The repository, or "" for any.
        times: How often it goes wrong.
        status: Answer with this status.
        headers: And with these headers.
        cut: Send so many bytes of the body, then drop the connection.
        extra: Send so many bytes too many, without a length.
        flip: Change a byte of the body.
        hang: Wait so many seconds, then drop the connection.
        pace: Seconds between pieces of 4 kB.
        drip: Seconds between single bytes of an answer, its head too.
        announce: Announce so many bytes more than there are, wherever sizes are told.
        sizeless: Tell no sizes.
        endless: Send bytes for ever after a head without a length.
        packed: Send this with gzip as its coding.
        ignore_range: Send the whole file whatever part is asked for.
        location: Redirect to this address.
        commit: Name this commit.
        etag: Name this ETag.
        gone: Stop serving altogether.
    """

    where: str
    method: str = ""
    repository: str = ""
    times: int = 10**9
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    extra: int = 0
    flip: bool = False
    hang: float = 0.0
    pace: float = 0.0
    drip: float = 0.0
    announce: int = 0
    sizeless: bool = False
    endless: bool = False
    packed: bytes = b""
    ignore_range: bool = False
    location: str = ""
    commit: str | None = None
    etag: str | None = None
    gone: bool = False


@dataclass(frozen=True)
class Request:
    """What has been asked for."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Hub:
    """What the Hub holds, and what it has been asked for.

    Attributes:
        repositories: Repository -> revision ("main", a tag ...) -> files.
        troubles: What goes wrong; the first that fits a request counts.
        requests: Every request.
        sent: How many bytes of answers without end.
    """

    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    sent: int = 0
    address: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def trouble(self, where: str, **how: object) -> Hub:
        """Let something go wrong."""
        self.troubles.append(Trouble(where, **how))  # type: ignore[arg-type]
        return self

    def commit(self, repository: str, revision: str = "main") -> str:
        """Give the commit that a revision stands for."""
        if re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()

    def find(self, repository: str, revision: str) -> tuple[str, Files] | None:
        """Give the commit and the files of a revision, by its name or its commit."""
        for name, files in self.repositories.get(repository, {}).items():
            commit = self.commit(repository, name)
            if revision in (name, commit):
                return commit, files
        return None

    def asked(self, method: str = "", part: str = "") -> list[Request]:
        """Give the requests of a method for paths that hold a part."""
        return [
            request
            for request in self.requests
            if method in ("", request.method) and part in request.path
        ]

    def meet(self, request: Request) -> Trouble:
        """Note a request, and give what goes wrong with it."""
        with self.lock:
            self.requests.append(request)
            for trouble in self.troubles:
                fits = trouble.where in request.path and trouble.method in ("", request.method)
                fits = fits and f"{trouble.repository}/" in request.path
                if fits and trouble.times > 0:
                    trouble.times -= 1
                    return trouble
        return Trouble("")

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        """Answer requests at `address`."""
        hub = self

        class Handler(_Handler):
            asked = hub

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Keep quiet of clients that leave."""

        server = Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_port}"
        self.stopping.clear()
        try:
            yield self
        finally:
            self.stopping.set()
            server.shutdown()
            thread.join()
            server.server_close()


class _Dripping:
    """Write byte by byte, slowly."""

    def __init__(self, to: BufferedIOBase, seconds: float, stopping: threading.Event) -> None:
        self._to, self._seconds, self._stopping = to, seconds, stopping

    def write(self, content: bytes) -> None:
        for byte in content:
            if not self._stopping.wait(self._seconds):
                self._to.write(bytes([byte]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        self.close_connection = True
        path = urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        trouble = self.asked.meet(Request(self.command, path, headers))
        if trouble.hang:
            self.asked.stopping.wait(trouble.hang)
            return
        if trouble.drip:
            self.wfile = _Dripping(self.wfile, trouble.drip, self.asked.stopping)  # type: ignore[assignment]
        if trouble.status and trouble.endless:
            return self._send_for_ever(trouble.status, trouble.headers)
        if trouble.status:
            return self._send(trouble.status, b"", trouble.headers)
        file = re.fullmatch(r"(/cdn)?/([^/]+/[^/]+)/resolve/(.+?)/([^/]+.*)", path)
        if file is None:
            return self._send(404, b"", {})
        found = self._find(file[2], f"{file[3]}/{file[4]}")
        if isinstance(found, str):
            return self._send(404, b"", {"X-Error-Code": found})
        commit, name, content = found
        self._send_file(content, commit, name, trouble, elsewhere=file[1] is not None)

    def _find(self, repository: str, rest: str) -> tuple[str, str, bytes] | str:
        revisions = self.asked.repositories.get(repository)
        if revisions is None:
            return "RepoNotFound"
        for revision in revisions:
            for known in (revision, self.asked.commit(repository, revision)):
                if rest.startswith(f"{known}/"):
                    name = rest.removeprefix(f"{known}/")
                    commit, files = self.asked.commit(repository, revision), revisions[revision]
                    return (commit, name, files[name]) if name in files else "EntryNotFound"
        return "RevisionNotFound"

    def _send_file(
        self, content: bytes, commit: str, name: str, trouble: Trouble, *, elsewhere: bool
    ) -> None:
        headers = {"X-Repo-Commit": commit if trouble.commit is None else trouble.commit}
        size = len(content) + trouble.announce
        if name.endswith(SMALL):
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            headers["ETag"] = f'"{etag if trouble.etag is None else trouble.etag}"'
        else:
            etag = hashlib.sha256(content).hexdigest() if trouble.etag is None else trouble.etag
            headers["X-Linked-Etag"] = f'"{etag}"'
            if not trouble.sizeless:
                headers["X-Linked-Size"] = str(size)
            # The same machine by another name is another host to who must not hand on tokens.
            there = self.asked.address.replace("127.0.0.1", "localhost")
            if trouble.location or not elsewhere:
                headers["Location"] = trouble.location or f"{there}/cdn{self.path}"
                return self._send(302, b"", headers)
        if trouble.endless and self.command == "GET":
            return self._send_for_ever(200, headers)
        if trouble.packed:
            content, headers["Content-Encoding"] = trouble.packed, "gzip"
        if trouble.flip:
            content = content[:-7] + bytes([content[-7] ^ 1]) + content[-6:]
        self._send_part(content, headers, trouble)

    def _send_part(self, content: bytes, headers: dict[str, str], trouble: Trouble) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not trouble.ignore_range else 0
        whole = len(content) + trouble.announce
        if asked and start >= len(content):
            return self._send(416, b"", {"Content-Range": f"bytes */{whole}"})
        body = content[start:] + bytes(trouble.extra)
        self.send_response(206 if start else 200)
        self.send_header("Connection", "close")
        if start:
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        if not trouble.extra and not trouble.sizeless:
            headers["Content-Length"] = str(whole - start)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            end = len(body) if trouble.cut is None else trouble.cut
            for place in range(0, end, 4_096) if trouble.pace else (0,):
                self.wfile.write(body[place : min(end, place + 4_096) if trouble.pace else end])
                time.sleep(trouble.pace)
            if trouble.cut is not None:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

    def _send_for_ever(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # which is how we learn that nobody listens any more
            while not self.asked.stopping.is_set():
                self.wfile.write(bytes(1 << 16))
                self.asked.sent += 1 << 16

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def environment(home: Path, endpoint: str, **variables: str) -> dict[str, str]:
    """Give the variables of a process whose Hub is ours, without any settings of this one's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("HF_")
    }
    root = Path(__file__).resolve().parents[1]
    # Short, so that what hangs is given up soon.
    limits = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    ours = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "PYTHONPATH": str(root)}
    return {**kept, **limits, **ours, "OMP_NUM_THREADS": "1", **variables}


@dataclass(frozen=True)
class Done:
    """What a process gave."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


def start(
    words: Sequence[str], variables: dict[str, str], script: str = ""
) -> subprocess.Popen[str]:
    """Start a `speakup` process, or one that runs a script first."""
    program = ["-m", "speakup"] if not script else ["-c", script]
    return subprocess.Popen(
        [sys.executable, *program, *words],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


ZYGOTE = """
import json, os, sys
import httpx2, numpy, rich.console, rich.progress, rich.table, safetensors, speakup.cli
import speakup.models.cards
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in ((1, job["out"]), (2, job["err"])):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
        os.environ.clear()
        os.environ.update(job["variables"])
        sys.argv = ["speakup", *job["words"]]
        code = 1
        try:
            exec(job["script"] or "sys.exit(speakup.cli.main())", {"sys": sys, "speakup": speakup})
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Zygote:
    """A process that has imported what does not depend on the environment, and forks others."""

    def __init__(self) -> None:
        nobody = environment(Path("nowhere"), "http://127.0.0.1:9")
        self.process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE],
            env=nobody,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: Sequence[str], variables: dict[str, str], script: str = "") -> Done:
        """Run a `speakup` process to its end."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            job = {"words": list(words), "variables": variables, "script": script}
            self.process.stdin.write(json.dumps(job | {"out": str(out), "err": str(err)}) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            done = Done(code, out.read_text("utf-8"), err.read_text("utf-8"))
        assert "Traceback" not in done.err, done.err
        return done


@functools.cache
def _zygote() -> Zygote:
    return Zygote()


def run(words: Sequence[str], variables: dict[str, str], script: str = "") -> Done:
    """Run a `speakup` process to its end, forked from one that is there where that can be."""
    if hasattr(os, "fork"):
        if _zygote().process.poll() is not None:  # ended by a test that ends all children
            _zygote.cache_clear()
        return _zygote().run(words, variables, script)
    with start(words, variables, script) as process:
        out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)
