"""Read files whose sizes are not those of their contents: WAV, RF64, CAF, and what ends in zeros.

Sizes were never filled in where a file was written to a pipe. libsndfile and FFmpeg take most such
sizes for what they are. They refuse RF64 whose 64-bit sizes are unknown, and stop reading WAV at
the 4 GiB that its unknown size stands for.

A file that a download or a recorder made as large as it was to become, and did not fill, ends
in zeros. libsndfile takes them for chunks, eight bytes at a time, which can take hours; so does
FFmpeg in CAF, twelve bytes at a time. In FLAC and MPEG audio FFmpeg looks for a frame byte by byte,
and takes the whole for sound when it reckons an MP3's length from its bit rate.

Reference: EBU Tech 3306, sections 2 and 4; ITU-R BS.2088 (BW64); Apple Core Audio Format
Specification 1.0 (CAF).
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

from speakup.errors import InputError

_MOST_BEFORE_DATA = 1 << 16
_MOST_AFTER_DATA = 1 << 16
"""What is no chunk may be so long after the samples, or instead of them, that it is walked over."""

_AT_ONCE = 1 << 20
_MOST_CHUNKS = 1000
_MOST_SEEKABLE = 1 << 40
"""Bytes to which any system goes, and more than any sound has."""

_DS64 = struct.Struct("<4sIQQQI")


def mended(path: Path) -> io.BufferedReader | None:
    """Open a file that does not know its size as one that does, and without what is no chunk.

    Returns:
        The open file; None for any other, which can be read as it is.

    Raises:
        InputError: it holds no samples, and so much else that looking for them takes long.
    """
    with path.open("rb") as file:
        head = file.read(_MOST_BEFORE_DATA)
        size = file.seek(0, io.SEEK_END)
        if head[:4] == b"caff":
            return _mended_caf(path, file, size)
        if head[:4] == b"fLaC" or head[:3] == b"ID3" or head[:1] == b"\xff":
            return _cut(path, size, _without_zeros(file, size), True)
        if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] != b"WAVE":
            return None
        chunks, data = _chunks(head)
        frame_bytes = int.from_bytes(chunks.get(b"fmt ", b"")[20:22], "little")
        if not data or not frame_bytes or not _is_unknown(head, chunks, data, size - data):
            return _cut(path, size, *_walked(file, size, chunks.get(b"ds64", b"")))
    kept = b"".join(chunk for name, chunk in chunks.items() if name != b"ds64")
    length = size - data
    whole = 4 + _DS64.size + len(kept) + 8 + length
    sizes = _DS64.pack(b"ds64", _DS64.size - 8, whole, length, length // frame_bytes, 0)
    start = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE") + sizes + kept
    start += struct.pack("<4sI", b"data", 0xFFFFFFFF)
    return io.BufferedReader(_Joined(start, path, data, size))


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


def _walked(file: BinaryIO, size: int, ds64: bytes) -> tuple[int, bool]:
    """Go from chunk to chunk; tell where the last one ends, and whether one holds the samples.

    A chunk that is longer than the file ends with it.
    """
    at, has_data = 12, False
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or not _is_name(head[:4]):
            break
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            has_data = True
            if length == 0xFFFFFFFF and len(ds64) >= _DS64.size:
                length = _DS64.unpack_from(ds64)[3]
            if not length:
                return size, True
        at += 8 + length + length % 2
        if at >= size:
            return size, has_data
    return at, has_data


def _mended_caf(path: Path, file: BinaryIO, size: int) -> io.BufferedReader | None:
    """Do as `mended` for CAF, whose sizes have 64 bits and are negative where they are unknown."""
    at, has_data = 8, False
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(12)
        if len(head) < 12 or not _is_name(head[:4]):
            break
        is_data = head[:4] == b"data"
        has_data = has_data or is_data
        length = int.from_bytes(head[4:], "big", signed=True)
        if length > _MOST_SEEKABLE and at <= _MOST_BEFORE_DATA:
            # FFmpeg gives up where it cannot go to a chunk's end; behind the file it may lie.
            file.seek(0)
            start = file.read(at + 4) + _MOST_SEEKABLE.to_bytes(8, "big")
            return io.BufferedReader(_Joined(start, path, at + 12, size))
        if length < 0 or (is_data and not length) or at + 12 + length >= size:
            return None
        at += 12 + length
    return _cut(path, size, at, has_data)


def _without_zeros(file: BinaryIO, size: int) -> int:
    """Tell where the zeros at the end of a file begin, less those that a frame may end in."""
    end, zeros = size, bytes(_AT_ONCE)
    while end > 0:
        start = max(end - _AT_ONCE, 0)
        file.seek(start)
        block = file.read(end - start)
        if block != zeros and (rest := block.rstrip(b"\0")):
            return min(start + len(rest) + _MOST_AFTER_DATA, size)
        end = start
    return size


def _is_name(name: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in name)


def _cut(path: Path, size: int, end: int, has_data: bool) -> io.BufferedReader | None:
    """Open a file without what follows its last chunk, if that is much.

    Raises:
        InputError: none of its chunks holds samples.
    """
    if size - end <= _MOST_AFTER_DATA:
        return None
    if not has_data:
        raise InputError("holds no samples", path, "Copy or record it again")
    return io.BufferedReader(_Joined(b"", path, 0, end))


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
    """Some bytes, and then a file from some place on to another, as if they were one file."""

    def __init__(self, start: bytes, path: Path, offset: int, end: int) -> None:
        self._start, self._offset = start, offset
        self._file = io.FileIO(path)
        self._size = len(start) + end - offset
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
            count = self._file.readinto(buffer[: max(self._size - self._at, 0)])
        self._at += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
