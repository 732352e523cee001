"""Enhance a file, and an array, from Python.

python python_api.py recording.wav
"""

import sys
from pathlib import Path

import soundfile

import speakup


def main() -> None:
    """Enhance the file named on the command line, in the two ways there are."""
    source = Path(sys.argv[1])

    # A file to a file, of any length, at constant memory.
    config = speakup.Config(loudness="spotify", max_attenuation=30.0)
    target = source.with_name(f"{source.stem}_spotify.flac")
    result = speakup.enhance(source, target, config=config)
    print(f"{result.output}: {result.lufs_in:.1f} to {result.lufs_out:.1f} LUFS")
    print(f"{result.seconds:.1f} s at {result.speed:.0f} times real time")

    # An array (C, T) to an array; here only the denoiser, at the rate the array has.
    samples, sample_rate = soundfile.read(source, dtype="float32", always_2d=True)
    denoiser = speakup.Pipeline(speakup.Config(upsample="off", loudness="off", sample_rate="keep"))
    denoised = denoiser.process(samples.T, sample_rate)
    print(f"denoised {denoised.shape[0]} x {denoised.shape[1]} samples at {sample_rate} Hz")


if __name__ == "__main__":
    main()
