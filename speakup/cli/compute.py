"""Set up torch for a command; the library itself never sets threads."""

from __future__ import annotations

import ctypes
import sys

from speakup.config import Config

_MOST_JOBS = 4
"""Files at a time on a CPU unless told otherwise: each needs memory of its own."""

_MOST_JOBS_ON_A_GPU = 8
"""There the chunks of several files share batches, and what is left for the CPU takes longest."""

_KEPT_BYTES = 512 * 2**20
_LARGEST_FROM_HEAP = 32 * 2**20  # glibc takes no more
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def set_up(config: Config, *, files: int = 1, jobs: int | None = None) -> int:
    """Share the cores among the files that are worked on at a time.

    Args:
        config: Its `threads` count for each file; None shares the cores out.
        files: How many there are.
        jobs: How many to work on at a time; None decides by cores. Many files at a time with one
            thread each are faster than one with many: parts of each file's way are for one core.

    Returns:
        How many to work on at a time.
    """
    import torch

    _keep_freed_memory()
    # Networks fade towards silence, and denormal numbers take a hundred times as long.
    # Threads inherit it from the one that starts them.
    torch.set_flush_denormal(True)
    cores = torch.get_num_threads()
    on_cuda = config.device.startswith("cuda") or (
        config.device == "auto" and torch.cuda.is_available()
    )
    if jobs is None:
        jobs = max(1, min(files, cores, _MOST_JOBS_ON_A_GPU if on_cuda else _MOST_JOBS))
    torch.set_num_threads(config.threads or max(1, cores // jobs))
    return jobs


def _keep_freed_memory() -> None:
    """Have the C library reuse what is freed instead of giving it back to the system each time.

    Networks take and free the same few megabytes all the time; to get them from the system anew,
    page by page, took a fifth of the denoiser's time in bfloat16.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # missing from C libraries but glibc
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
