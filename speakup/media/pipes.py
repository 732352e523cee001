"""Standard input and output: sound without a file, and without a header where it is raw."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from speakup.blocks import HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS
from speakup.errors import ConfigError, InputError
from speakup.files import output_error

STDIN, STDOUT = "standard input", "standard output"
_AT_ONCE = 1 << 20
_UNKNOWN_SIZE = 0xFFFFFFFF

# Sun's header for sound (.snd, .au) is the shortest of those that state any sample format, and it
# may leave the size open. libsndfile knows it in both byte orders.
_CODES = {"u8": 2, "s8": 2, "s16": 3, "s24": 4, "s32": 5, "f32": 6, "f64": 7}
_FLIPPED = bytes(byte ^ 0x80 for byte in range(256))


@dataclass(frozen=True)
class RawFormat:
    """Say how samples without a header are to be read.

    Attributes:
        sample_rate: In Hz.
        channels: How many, interleaved.
        sample_format: u8, s8, s16le, s16be, s24le, ... s32, f32 and f64, as FFmpeg calls them.
    """

    sample_rate: int
    channels: int
    sample_format: str

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read RATE:CHANNELS:FORMAT, such as 16000:1:s16le.

        Raises:
            ConfigError: it is something else.
        """
        found = re.fullmatch(r"(\d{1,6}):(\d{1,2}):([us]8|(?:s16|s24|s32|f32|f64)[lb]e)", text)
        rate, channels = (int(found[1]), int(found[2])) if found else (0, 0)
        if found is None or not (
            1 <= channels <= MOST_CHANNELS and LOWEST_RATE <= rate <= HIGHEST_RATE
        ):
            raise ConfigError(
                f"raw is {text!r}",
                None,
                "Give RATE:CHANNELS:FORMAT, such as 16000:1:s16le; formats are u8, s8, s16le, "
                "s24le, s32le, f32le, f64le and the same with be",
            )
        return cls(rate, channels, found[3])

    def header(self) -> bytes:
        """Give a header that makes the samples a file."""
        little = self.sample_format.endswith("le")
        code = _CODES[self.sample_format.removesuffix("le").removesuffix("be")]
        fields = (24, _UNKNOWN_SIZE, code, self.sample_rate, self.channels)
        magic = b"dns." if little else b".snd"
        return magic + struct.pack(("<" if little else ">") + "5I", *fields)

    def signed(self, data: bytes) -> bytes:
        """Give the samples as the header says they are; only unsigned ones change."""
        return data.translate(_FLIPPED) if self.sample_format == "u8" else data


def spool(stream: BinaryIO, path: Path, raw: RawFormat | None = None) -> None:
    """Copy a stream to a file that exists, because decoding it takes two passes.

    Args:
        stream: Read to its end.
        path: The file, which is private.
        raw: How to read samples without a header.

    Raises:
        InputError: nothing comes.
        OutputError: the disk is full, or the like.
    """
    size = 0
    try:
        with path.open("wb") as file:
            if raw is not None:
                file.write(raw.header())
            while data := stream.read(_AT_ONCE):
                size += len(data)
                file.write(data if raw is None else raw.signed(data))
    except OSError as error:
        raise output_error(error, path.parent) from error
    if not size:
        raise InputError("is empty: 0 bytes", STDIN, "See whether what feeds it has failed")


def pour(path: Path, stream: BinaryIO) -> None:
    """Copy a file that is no longer wanted to a stream.

    Raises:
        BrokenPipeError: who reads the stream has had enough.
        OutputError: it cannot take all, for another reason.
    """
    with path.open("rb") as file:
        if os.name == "posix":
            path.unlink()  # Whatever happens now, nothing stays behind.
        try:
            while rest := memoryview(file.read(_AT_ONCE)):
                while rest:  # With PYTHONUNBUFFERED a stream takes what it can, not all.
                    rest = rest[stream.write(rest) or 0 :]
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error(error, STDOUT) from error
