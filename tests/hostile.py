"""Files that do harm to those who read them."""

from __future__ import annotations

import struct


def adx_without_blocks() -> bytes:
    """Give an ADX file of block size 0, by which FFmpeg divides."""
    head = struct.pack(">HHBBBBII", 0x8000, 0x0020, 3, 0, 4, 2, 48000, 28800)
    return head + struct.pack(">HH", 500, 0x0300) + bytes(10) + b"(c)CRI" + b"\0\x20\x87\1" * 8000


def quicktime_with_layout(tag: int) -> bytes:
    """Give 5.1 PCM in QuickTime whose `chan` atom has that layout tag (Apple's CoreAudioTypes)."""

    def atom(name: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I", 8 + len(body)) + name + body

    channels, frames = 6, 4800
    data = bytes(2 * channels * frames)
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    sound = struct.pack(">6xH", 1) + struct.pack(">HHI", 0, 0, 0)
    sound += struct.pack(">HHHHI", channels, 16, 0, 0, 48000 << 16)
    chan = atom(b"chan", bytes(4), struct.pack(">III", tag, 0, 0))
    head = atom(b"ftyp", b"qt  ", bytes(4), b"qt  ")

    def moov(offset: int) -> bytes:
        table = atom(
            b"stbl",
            atom(b"stsd", bytes(4), struct.pack(">I", 1), atom(b"sowt", sound, chan)),
            atom(b"stts", bytes(4), struct.pack(">III", 1, frames, 1)),
            atom(b"stsc", bytes(4), struct.pack(">IIII", 1, 1, frames, 1)),
            atom(b"stsz", bytes(4), struct.pack(">II", 2 * channels, frames)),
            atom(b"stco", bytes(4), struct.pack(">II", 1, offset)),
        )
        reference = atom(b"dref", bytes(4), struct.pack(">I", 1), atom(b"url ", b"\0\0\0\1"))
        return atom(
            b"moov",
            atom(b"mvhd", bytes(12), struct.pack(">II", 48000, frames), bytes(16), matrix,
                 bytes(24), struct.pack(">I", 2)),
            atom(
                b"trak",
                atom(b"tkhd", b"\0\0\0\7", bytes(8), struct.pack(">III", 1, 0, frames),
                     bytes(16), matrix, bytes(8)),
                atom(
                    b"mdia",
                    atom(b"mdhd", bytes(12), struct.pack(">II", 48000, frames), bytes(4)),
                    atom(b"hdlr", bytes(4), b"mhlrsoun", bytes(13)),
                    atom(b"minf", atom(b"smhd", bytes(8)), atom(b"dinf", reference), table),
                ),
            ),
        )  # fmt: skip

    return head + moov(len(head) + len(moov(0)) + 8) + atom(b"mdat", data)
