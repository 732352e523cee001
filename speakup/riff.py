"""Read WAV and RF64 files whose sizes were never filled in, because they were written to a pipe.

libsndfile and FFmpeg take most such sizes for what they are. They refuse RF64 whose 64-bit sizes
are unknown, and stop reading WAV at the 4 GiB that its unknown size stands for.

Reference: EBU Tech 3306, sections 2 and 4; ITU-R BS.2088 (BW64).
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

_MOST_BEFORE_DATA = 1 << 16
_DS64 = struct.Struct("<4sIQQQI")


def mended(path: Path) -> io.BufferedReader | None:
    """Open a file that does not know its size as RF64 that does.

    Returns:
        The open file; None for any other, which can be read as it is.
    """
    with path.open("rb") as file:
        head = file.read(_MOST_BEFORE_DATA)
        size = file.seek(0, io.SEEK_END)
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] != b"WAVE":
        return None
    chunks, data = _chunks(head)
    frame_bytes = int.from_bytes(chunks.get(b"fmt ", b"")[20:22], "little")
    if not data or not frame_bytes or not _is_unknown(head, chunks, data, size - data):
        return None
    kept = b"".join(chunk for name, chunk in chunks.items() if name != b"ds64")
    length = size - data
    whole = 4 + _DS64.size + len(kept) + 8 + length
    sizes = _DS64.pack(b"ds64", _DS64.size - 8, whole, length, length // frame_bytes, 0)
    start = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE") + sizes + kept
    start += struct.pack("<4sI", b"data", 0xFFFFFFFF)
    return io.BufferedReader(_Joined(start, path, data))


def _chunks(head: bytes) -> tuple[dict[bytes, bytes], int]:
    """List the chunks before the samples, whole, and where the samples begin; 0 if nowhere."""
    at = 12
    chunks: dict[bytes, bytes] = {}
    while at + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, at)
        if name == b"data":
            return chunks, at + 8
        end = at + 8 + size + size % 2
        chunks[name] = head[at:end]
        at = end
    return {}, 0


def _is_unknown(head: bytes, chunks: dict[bytes, bytes], data: int, length: int) -> bool:
    if head[:4] == b"RIFF":
        (stated,) = struct.unpack_from("<I", head, data - 4)
        # What programs write for "unknown": all ones, or the most they think safe.
        placeholder = (stated + 2**16) % 2**31 <= 2**16 and stated > 2**16
        return placeholder and length > stated
    sizes = chunks.get(b"ds64", b"").ljust(_DS64.size, b"\0")
    stated = _DS64.unpack_from(sizes)[3]
    return stated == 0 or stated >= 2**63


class _Joined(io.RawIOBase):
    """Some bytes, and then a file from some place on, as if they were one file."""

    def __init__(self, start: bytes, path: Path, offset: int) -> None:
        self._start, self._offset = start, offset
        self._file = io.FileIO(path)
        self._size = len(start) + self._file.seek(0, io.SEEK_END) - offset
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; return it."""
        self._at = max(offset + {0: 0, 1: self._at, 2: self._size}[whence], 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read from where the position is."""
        own = self._start[self._at : self._at + len(buffer)]
        if own:
            buffer[: len(own)] = own
            count = len(own)
        else:
            self._file.seek(self._at - len(self._start) + self._offset)
            count = self._file.readinto(buffer)
        self._at += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
