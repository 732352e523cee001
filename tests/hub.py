"""A tiny Hub on this machine: enough of its protocol to download repositories from."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Files = dict[str, bytes]


@dataclass
class Hub:
    """What the Hub holds, and what it has been asked for.

    Attributes:
        repositories: Repository -> revision ("main", a tag ...) -> files.
        broken: Paths that are answered by half of a file.
        down: Repositories for which the Hub answers that it has an error of its own.
        requests: Method and path of every request.
    """

    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def commit(self, repository: str, revision: str) -> str:
        """Give the commit that a revision stands for."""
        return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()

    def find(self, repository: str, revision: str) -> tuple[str, Files] | None:
        """Give the commit and the files of a revision, by its name or its commit."""
        for name, files in self.repositories.get(repository, {}).items():
            commit = self.commit(repository, name)
            if revision in (name, commit):
                return commit, files
        return None

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        """Answer requests at `address`."""
        hub = self

        class Handler(_Handler):
            asked = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    asked: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.asked.requests.append(f"{self.command} {path}")
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = tree or file or info
        if match is None:
            return self._fail(404, "EntryNotFound")
        repository, revision = match[1], match[2] or "main"
        if repository in self.asked.down:
            return self._fail(501, "Down")
        if repository not in self.asked.repositories:
            return self._fail(404, "RepoNotFound")
        found = self.asked.find(repository, revision)
        if found is None:
            return self._fail(404, "RevisionNotFound")
        commit, files = found
        if match is file:
            return self._send_file(commit, files.get(file[3]), path)
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
            for name, content in files.items()
        ]
        siblings = [{"rfilename": name} for name in files]
        about = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings}
        self._send(json.dumps(entries if match is tree else about).encode())

    def _send_file(self, commit: str, content: bytes | None, path: str) -> None:
        if content is None:
            return self._fail(404, "EntryNotFound")
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit}
        self._send(content, headers, whole=path not in self.asked.broken)

    def _send(
        self, content: bytes, headers: dict[str, str] | None = None, *, whole: bool = True
    ) -> None:
        self.send_response(200)
        for name, value in (headers or {"Content-Type": "application/json"}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content if whole else content[: len(content) // 2])

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
