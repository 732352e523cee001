"""Give an Ogg Vorbis file new comments and a fixed serial number, bit for bit otherwise.

libsndfile numbers each Ogg stream at random and knows ten tags; copying the packets through
FFmpeg instead loses the trimmed end of clips shorter than a page. So the pages are rewritten
here: the audio packets and their positions are left alone.

Reference: RFC 3533, section 6 (pages); Vorbis I specification, sections 4.2.1 and 5 (headers).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

_HEADER = struct.Struct("<4sBBqIIIB")
_CONTINUED, _FIRST = 1, 2
_SERIAL = 1
_COMMENT_MAGIC = b"\x03vorbis"
_REVERSED_BYTES = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    flags: int
    position: int
    sequence: int
    lacing: bytes
    body: bytes

    def packed(self) -> bytes:
        fields = (b"OggS", 0, self.flags, self.position, _SERIAL, self.sequence)
        lacing = self.lacing
        blank = _HEADER.pack(*fields, 0, len(lacing)) + lacing
        return _HEADER.pack(*fields, checksum(blank + self.body), len(lacing)) + lacing + self.body


def rewrite_comments(
    read: Callable[[int], bytes], write: Callable[[bytes], object], comments: Mapping[str, str]
) -> None:
    """Copy an Ogg Vorbis stream, replacing all of its comments.

    Args:
        read: Gives that many bytes of the stream, none at its end.
        write: Takes the new file, piece by piece.
        comments: Field names and values; the encoder's vendor string is kept.
    """
    pages = _read_pages(read)
    headers, first = _collect_headers(pages)
    identification, old_comments, setup = headers
    sequence = 0
    for page in (
        *_paginate([identification], sequence, _FIRST),
        *_paginate([_comment_packet(old_comments, comments), setup], sequence + 1, 0),
    ):
        write(page.packed())
        sequence = page.sequence + 1
    for page in pages:
        write(replace(page, sequence=page.sequence - first + sequence).packed())


def checksum(data: bytes) -> int:
    """Compute the CRC of a page whose own CRC field is zero.

    Ogg's CRC runs from the top bit down, from 0, with zlib's polynomial; so it is zlib's CRC
    of the bit-reversed bytes, itself reversed, without zlib's inversions at both ends.

    Reference: RFC 3533, section 6, field 7.
    """
    mirrored = zlib.crc32(data.translate(_REVERSED_BYTES), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _read_pages(read: Callable[[int], bytes]) -> Iterator[_Page]:
    while header := read(_HEADER.size):
        _, _, flags, position, _, sequence, _, segments = _HEADER.unpack(header)
        lacing = read(segments)
        yield _Page(flags, position, sequence, lacing, read(sum(lacing)))


def _collect_headers(pages: Iterator[_Page]) -> tuple[list[bytes], int]:
    """Read the three header packets; return them and the number of the page that follows.

    The audio begins on a page of its own (Vorbis I, appendix A.2).
    """
    packets = [b""]
    for page in pages:
        start = 0
        for length in page.lacing:
            packets[-1] += page.body[start : start + length]
            start += length
            if length < 255:
                packets.append(b"")
        if len(packets) == 4:
            return packets[:3], page.sequence + 1
    raise ValueError("no Vorbis headers")


def _comment_packet(old: bytes, comments: Mapping[str, str]) -> bytes:
    (length,) = struct.unpack_from("<I", old, len(_COMMENT_MAGIC))
    vendor = old[: len(_COMMENT_MAGIC) + 4 + length]
    entries = [f"{name}={value}".encode() for name, value in comments.items()]
    listed = b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
    return vendor + struct.pack("<I", len(entries)) + listed + b"\x01"


def _paginate(packets: list[bytes], sequence: int, flags: int) -> Iterator[_Page]:
    """Lay header packets out on pages of at most 255 segments of at most 255 bytes.

    The last segment of a packet is shorter than 255. A page on which no packet ends has
    position -1; header pages have position 0 otherwise.
    """
    lacing = b"".join(
        b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets
    )
    body = b"".join(packets)
    continued = 0
    while lacing:
        here, lacing = lacing[:255], lacing[255:]
        position = 0 if min(here) < 255 else -1
        yield _Page(flags | continued, position, sequence, here, body[: sum(here)])
        body = body[sum(here) :]
        continued = _CONTINUED if here[-1] == 255 else 0
        sequence += 1
