"""Set up torch for a command; the library itself never sets threads."""

from __future__ import annotations

from speakup.config import Config

_MOST_JOBS = 4
"""Files at a time on a CPU unless told otherwise: each needs memory of its own."""

_MOST_JOBS_ON_A_GPU = 8
"""There the chunks of several files share batches, and what is left for the CPU takes longest."""


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
