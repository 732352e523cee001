"""Read the files named on standard input, one a line, under limits; run by test_fuzz.py."""

from __future__ import annotations

import faulthandler
import logging
import resource
import sys

import av
import numpy as np

from speakup.errors import InputError
from speakup.media.recording import probe, read_blocks

MOST_SAMPLES = 400_000_000
"""An hour and more of silence in gaps, in stereo; what gives more never ends."""


def outcome(path: str) -> str:
    """Say how reading ends; what is neither of the two right ways is said as it is."""
    try:
        probe(path)
        count = 0
        for block in read_blocks(path, warnings=[]):
            assert block.dtype == np.float32 and block.ndim == 2 and 0 < block.shape[1] <= 65536
            count += block.size
            if count > MOST_SAMPLES:
                return f"gives {count} samples, and more"
    except InputError:
        return "refused"
    except MemoryError:
        return "wants more memory than there is"
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return "decoded"


def main() -> None:
    """Answer each line with one."""
    most_bytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    logging.disable(logging.CRITICAL)
    av.logging.set_level(None)
    used = 0
    with open("/proc/self/statm") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + most_bytes, resource.RLIM_INFINITY))
    for line in sys.stdin:
        faulthandler.dump_traceback_later(seconds, exit=True)  # says where it hangs, and ends
        said = outcome(line.rstrip("\n"))
        faulthandler.cancel_dump_traceback_later()
        print(said, flush=True)


if __name__ == "__main__":
    main()
