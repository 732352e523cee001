"""Files for tests, written with FFmpeg."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from sounds import RATE

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 6: "5.1", 8: "7.1"}


def write_with_ffmpeg(
    path: Path,
    codec: str,
    waveform: NDArray[np.float32],
    *,
    rate: int = RATE,
    metadata: dict[str, str] | None = None,
    video: bool = False,
    audio: bool = True,
) -> None:
    layout = LAYOUTS[len(waveform)]
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        if video:
            picture = container.add_stream("mpeg4", rate=25)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        if audio:
            sound = container.add_stream(codec, rate=rate)
            sound.layout = layout
            if codec == "wmav2":
                sound.bit_rate = 64000
            interleaved = np.ascontiguousarray(waveform.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        for number in range(5 if video else 0):
            image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8))
            image.pts = number
            container.mux(picture.encode(image))
        if video:
            container.mux(picture.encode(None))
