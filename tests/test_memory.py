"""Memory does not grow with the recording: what a long one takes, a short one takes as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from nets import save_model, small_extender, small_mixer

from speakup.config import WORKING_RATE

_ENHANCE = """
import sys
import torch
from speakup import Config, Pipeline

torch.set_num_threads(1)
source, target, denoiser, upsampler = sys.argv[1:]
config = Config(denoiser=denoiser, upsampler=upsampler, upsample="always", device="cpu")
result = Pipeline(config).run(source, target)
assert [stage.name for stage in result.stages] == ["denoise", "upsample", "level", "loudness"]
# Of this process alone, unlike what getrusage gives, which begins with the parent's.
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_that_of_a_short_recording(tmp_path: Path) -> None:
    denoiser = save_model(tmp_path / "denoiser", small_mixer())
    upsampler = save_model(tmp_path / "upsampler", small_extender())
    random = np.random.default_rng(5)
    piece = 0.05 * random.standard_normal((25 * WORKING_RATE, 2))
    piece *= np.abs(np.sin(np.arange(len(piece)) / 4_000.0))[:, None]

    def peak_kib(pieces: int) -> int:
        source = tmp_path / f"{pieces}.wav"
        with soundfile.SoundFile(source, "w", WORKING_RATE, 2, "PCM_16") as file:
            for _ in range(pieces):
                file.write(piece)
        arguments = [str(source), str(tmp_path / "out.wav"), str(denoiser), str(upsampler)]
        done = subprocess.run(
            [sys.executable, "-c", _ENHANCE, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        (tmp_path / "out.wav").unlink()
        return int(done.stdout)

    # Before the third minute the allocator has not yet all that it goes on with.
    short, long = peak_kib(6), peak_kib(20)
    # Held in memory even once, the other 350 seconds would be 123 MB of float32 samples.
    assert long < short + 40_000
    assert long < 1_048_576
