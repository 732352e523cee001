"""Being someone who may not read and write everything, for tests run by root."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """Give a folder of ours into which everyone may look; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be no longer root, if we were."""
    if os.name == "nt":
        pytest.skip("POSIX permissions")
    if os.getuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except PermissionError:
        pytest.skip("root that may not become someone else")
    try:
        yield
    finally:
        os.seteuid(0)
