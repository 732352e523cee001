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

_LEAST_SAMPLES = 4096
"""Bytes behind the samples that may be anything, and are no alarm."""

_TAGS = (b"APETAGEX", b"TAG", b"ID3")
_KNOWN = (
    b"LIST", b"bext", b"iXML", b"cue ", b"fact", b"smpl", b"inst", b"id3 ", b"ID3 ", b"PEAK",
    b"JUNK", b"FLLR", b"PAD ", b"axml", b"chna", b"_PMX", b"cart", b"afsp", b"data",
)  # fmt: skip
"""Names of chunks that are none of sound, whatever their size says; and of sound."""

_ABOUT = (b"bext", b"iXML", b"cue ", b"smpl", b"cart", b"axml")

_DS64 = struct.Struct("<4sIQQQI")


def mended(path: Path, notes: list[str] | None = None) -> io.BufferedReader | None:
    """Open a file that does not know its size as one that does, and without what is no chunk.

    A tag in front of a file that begins behind it is left out. Of WAV, samples behind the size
    that the header states are read on to, and several `data` chunks are joined.

    Args:
        path: The file.
        notes: Takes a line where that is more than the header tells of.

    Returns:
        The open file; None for any other, which can be read as it is.

    Raises:
        InputError: it holds no samples, and so much else that looking for them takes long.
    """
    with path.open("rb") as opened:
        size = opened.seek(0, io.SEEK_END)
        front = _tag_in_front(opened)
        if front:
            with io.BufferedReader(_Joined(path, (front, size))) as file:
                found = _mended(path, front, file, size - front, notes)
            return found or io.BufferedReader(_Joined(path, (front, size)))
        return _mended(path, 0, opened, size, notes)


def chunks_about(path: Path) -> tuple[str, ...]:
    """List the chunks of a WAV file that tell of its making or name places in it."""
    found = []
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        at = _tag_in_front(file)
        file.seek(at)
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
            return ()
        at += 12
        for _ in range(_MOST_CHUNKS):
            file.seek(at)
            head = file.read(8)
            if len(head) < 8 or not _is_name(head[:4]):
                break
            if head[:4] in _ABOUT:
                found.append(head[:4].decode().strip())
            length = int.from_bytes(head[4:], "little")
            at = min(at + 8 + length + length % 2, size)
    return tuple(dict.fromkeys(found))


def _tag_in_front(file: BinaryIO) -> int:
    """Tell how long the ID3 tag is before a file of another kind than MPEG's; 0 without one.

    Reference: ID3v2.4, section 3.1: ten bytes, the last four of them its size, seven bits each.
    """
    file.seek(0)
    head = file.read(10)
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    length = 10
    for byte in head[6:]:
        length = (length - 10 << 7 | byte & 0x7F) + 10
    file.seek(length)
    return length if file.read(4) in (b"RIFF", b"RF64", b"BW64", b"FORM", b"caff") else 0


def _mended(
    path: Path, front: int, file: BinaryIO, size: int, notes: list[str] | None
) -> io.BufferedReader | None:
    """Do as `mended` for a file that begins at `front`; places are counted from there."""
    file.seek(0)
    head = file.read(_MOST_BEFORE_DATA)
    if head[:4] == b"caff":
        return _mended_caf(path, front, file, size)
    if head[:4] == b"fLaC" or head[:3] == b"ID3" or head[:1] == b"\xff":
        return _cut(path, front, size, _without_zeros(file, size), True)
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] != b"WAVE":
        return None
    chunks, data = _chunks(head)
    frame_bytes = int.from_bytes(chunks.get(b"fmt ", b"")[20:22], "little")
    parts = [(data, size)]
    if not data or not frame_bytes or not _is_unknown(head, chunks, data, size - data):
        end, found = _walked(file, size, chunks.get(b"ds64", b""))
        more = _read_on(file, size, found, frame_bytes) if frame_bytes else found
        if len(more) < 2 and more == found:
            return _cut(path, front, size, end, bool(found))
        if notes is not None:
            notes.append(_what_is_more(found, more))
        parts = more
    kept = b"".join(chunk for name, chunk in chunks.items() if name != b"ds64")
    length = sum(end - start for start, end in parts)
    whole = 4 + _DS64.size + len(kept) + 8 + length
    sizes = _DS64.pack(b"ds64", _DS64.size - 8, whole, length, length // frame_bytes, 0)
    start = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE") + sizes + kept
    start += struct.pack("<4sI", b"data", 0xFFFFFFFF)
    shifted = [(front + first, front + last) for first, last in parts]
    return io.BufferedReader(_Joined(path, start, *shifted))


def _what_is_more(found: list[tuple[int, int]], more: list[tuple[int, int]]) -> str:
    if len(more) > 1:
        return f"the samples are in {len(more)} parts, which were joined"
    stated, there = (parts[0][1] - parts[0][0] for parts in (found, more))
    return f"the header states {100 * stated / there:.0f} % of the samples; all were read"


def _read_on(
    file: BinaryIO, size: int, found: list[tuple[int, int]], frame_bytes: int
) -> list[tuple[int, int]]:
    """Lengthen the last samples to where they end, if what follows them is no chunk.

    So it is where a recorder crashed after it last wrote the size, and where a size of 32 bits
    has gone round. Tags at the end are no samples, and zeros are what a disk had ready.
    """
    if not found:
        return []
    start, end = found[-1]
    if size - end < _LEAST_SAMPLES:
        return found
    file.seek(end)
    head = file.read(_LEAST_SAMPLES)
    is_text = sum(0x20 <= byte < 0x7F or byte in b"\r\n\t\0" for byte in head) == len(head)
    if head[:8] in _TAGS or head[:3] in _TAGS or is_text or _is_chunk(head, size - end):
        return found
    if end % 2 and _is_chunk(head[1:], size - end):
        return found
    last = min(_without_zeros(file, size), _before_chunks(file, size))
    if last - end < _LEAST_SAMPLES:
        return found
    return [*found[:-1], (start, start + (last - start) // frame_bytes * frame_bytes)]


def _is_chunk(head: bytes, room: int) -> bool:
    """Tell whether a chunk begins here: it has a name, and ends before the file."""
    if not _is_name(head[:4]):
        return False
    return head[:4] in _KNOWN or int.from_bytes(head[4:8], "little") + 8 <= room + 1


def _before_chunks(file: BinaryIO, size: int) -> int:
    """Tell where the known chunks at the end of a file begin."""
    end = size
    while True:
        start = max(end - _MOST_AFTER_DATA, 0)
        file.seek(start)
        tail = file.read(end - start)
        for name in _KNOWN:
            at = tail.rfind(name)
            length = int.from_bytes(tail[at + 4 : at + 8], "little")
            if at >= 0 and start + at + 8 + length + length % 2 in (end, end + 1):
                end = start + at
                break
        else:
            return end


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


def _walked(file: BinaryIO, size: int, ds64: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Go from chunk to chunk; tell where the last one ends, and where samples begin and end.

    A chunk that is longer than the file ends with it.
    """
    at = 12
    found: list[tuple[int, int]] = []
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or not _is_name(head[:4]):
            break
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            if length == 0xFFFFFFFF and len(ds64) >= _DS64.size:
                length = _DS64.unpack_from(ds64)[3]
            if not length and not found:
                return size, [(at + 8, size)]
            if length:
                found.append((at + 8, min(at + 8 + length, size)))
        at += 8 + length + length % 2
        if at >= size:
            return size, found
    return at, found


def _mended_caf(path: Path, front: int, file: BinaryIO, size: int) -> io.BufferedReader | None:
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
            return io.BufferedReader(_Joined(path, start, (front + at + 12, front + size)))
        if length < 0 or (is_data and not length) or at + 12 + length >= size:
            return None
        at += 12 + length
    return _cut(path, front, size, at, has_data)


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


def _cut(path: Path, front: int, size: int, end: int, has_data: bool) -> io.BufferedReader | None:
    """Open a file without what follows its last chunk, if that is much.

    Raises:
        InputError: none of its chunks holds samples.
    """
    if size - end <= _MOST_AFTER_DATA:
        return None
    if not has_data:
        raise InputError("holds no samples", path, "Copy or record it again")
    return io.BufferedReader(_Joined(path, (front, front + end)))


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
    """Bytes, and parts of a file from one place on to another, as if they were one file."""

    def __init__(self, path: Path, *parts: bytes | tuple[int, int]) -> None:
        self._file = io.FileIO(path)
        self._parts: list[tuple[int, bytes | tuple[int, int]]] = []
        self._at = self._size = 0
        for part in parts:
            self._parts.append((self._size, part))
            self._size += len(part) if isinstance(part, bytes) else part[1] - part[0]

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
        if self._at >= self._size:
            return 0
        begin, part = next(found for found in reversed(self._parts) if found[0] <= self._at)
        inside = self._at - begin
        if isinstance(part, bytes):
            own = part[inside : inside + len(buffer)]
            buffer[: len(own)] = own
            count = len(own)
        else:
            self._file.seek(part[0] + inside)
            count = self._file.readinto(buffer[: part[1] - part[0] - inside])
        self._at += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
