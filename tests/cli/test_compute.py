"""How a command shares the cores among files."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from speakup.cli.compute import set_up
from speakup.config import Config


@pytest.fixture(autouse=True)
def threads_kept() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("cores", "files", "jobs", "threads"),
    [(2, 1, 1, 2), (2, 9, 2, 1), (8, 1, 1, 8), (8, 3, 3, 2), (16, 99, 4, 4), (1, 5, 1, 1)],
)
def test_many_files_share_the_cores_and_one_has_them_all(
    monkeypatch: pytest.MonkeyPatch, cores: int, files: int, jobs: int, threads: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    assert set_up(Config(device="cpu"), files=files) == jobs
    assert given == [threads]


def test_on_a_gpu_more_files_share_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert set_up(Config(), files=99) == 8
    assert set_up(Config(device="cuda:1"), files=3) == 3
    assert set_up(Config(device="cpu"), files=99) == 4


def test_what_is_asked_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    assert set_up(Config(device="cpu", threads=3), files=9, jobs=7) == 7
    assert given == [3]


_FAULTS = """
import resource, sys
import numpy as np
from speakup.cli.compute import set_up
from speakup.config import Config

if sys.argv[1] == "set up":
    set_up(Config())

def work():
    for _ in range(5):
        [np.ones(1_500_000, np.float32) for _ in range(12)]

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of this C library alone")
def test_memory_that_is_freed_is_used_again() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", _FAULTS, how], text=True))
        for how in ("plain", "set up")
    }
    # 72 MB are some 18,000 pages.
    assert faults["set up"] < 100 < faults["plain"]
