"""Damage that knows how files are built: it lies in sizes and counts, and moves whole parts.

Flipped bits rarely reach past a format's first check. So the parts of a file are found first
(chunks of RIFF, AIFF and CAF, atoms of MP4, elements of Matroska, pages of Ogg), and then one is
given another size, name, number or place; sums that guard a part are made good again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000)
_NUMBERS += (0xFFFFFFF0, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)
_CONTAINERS = (
    b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta", b"edts", b"dinf", b"moof", b"traf",
)  # fmt: skip
_MASTERS = {0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE1, 0xE0, 0x1F43B675, 0xA0}


@dataclass(frozen=True)
class Part:
    """A part of a file: where it begins and ends, and where its size stands."""

    start: int
    end: int
    body: int
    size_at: int
    size_bytes: int
    order: str = "big"


def parts(data: bytes) -> list[Part]:
    """List the parts of a file, those within others after them; none of what is not known."""
    if data[:4] in (b"RIFF", b"RF64"):
        return list(_chunks(data, 12, len(data), 4, "little"))
    if data[:4] == b"FORM":
        return list(_chunks(data, 12, len(data), 4, "big"))
    if data[:4] == b"caff":
        return list(_chunks(data, 8, len(data), 8, "big"))
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return list(_atoms(data, 0, len(data)))
    if data[:4] == b"\x1aE\xdf\xa3":
        return list(_elements(data, 0, len(data)))
    return list(_pages(data)) if data[:4] == b"OggS" else []


def _chunks(data: bytes, at: int, end: int, size_bytes: int, order: str) -> Iterator[Part]:
    while at + 4 + size_bytes <= end:
        size = int.from_bytes(data[at + 4 : at + 4 + size_bytes], order)  # type: ignore[arg-type]
        body = at + 4 + size_bytes
        last = min(body + size + (size % 2 if size_bytes == 4 else 0), end)
        yield Part(at, last, body, at + 4, size_bytes, order)
        at = max(last, body)


def _atoms(data: bytes, at: int, end: int) -> Iterator[Part]:
    while at + 8 <= end:
        size = int.from_bytes(data[at : at + 4], "big")
        last = min(at + size, end) if size >= 8 else end
        yield Part(at, last, at + 8, at, 4)
        if data[at + 4 : at + 8] in _CONTAINERS:
            yield from _atoms(data, at + 8, last)
        at = last


def _number(data: bytes, at: int) -> int:
    """Give how many bytes an EBML number has (RFC 8794, section 4)."""
    return 9 - data[at].bit_length() if at < len(data) and data[at] else 0


def _elements(data: bytes, at: int, end: int) -> Iterator[Part]:
    while at < end:
        name_bytes = _number(data, at)
        size_bytes = _number(data, at + name_bytes)
        body = at + name_bytes + size_bytes
        if not name_bytes or not size_bytes or body > end:
            return
        size = int.from_bytes(data[at + name_bytes : body], "big") & (1 << 7 * size_bytes) - 1
        last = min(body + size, end)
        yield Part(at, last, body, at + name_bytes, size_bytes)
        if int.from_bytes(data[at : at + name_bytes], "big") in _MASTERS:
            yield from _elements(data, body, last)
        at = last


def _pages(data: bytes) -> Iterator[Part]:
    at = data.find(b"OggS")
    while at >= 0 and at + 27 <= len(data):
        body = at + 27 + data[at + 26]
        last = min(body + sum(data[at + 27 : body]), len(data))
        yield Part(at, last, body, at + 26, 1)
        at = data.find(b"OggS", max(last, at + 4))


def _lie_about_the_size(data: bytearray, part: Part, chance: random.Random) -> None:
    stated = int.from_bytes(data[part.size_at : part.size_at + part.size_bytes], "big")
    near = (part.end - part.start + chance.choice((-9, -8, -1, 1, 8, 44)), stated + 1)
    _write(data, part.size_at, part.size_bytes, chance.choice((*_NUMBERS, *near)), part.order)


def _put_a_number(data: bytearray, part: Part, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 3))):
        room = min(part.end - part.body, 96)
        if room > 0:
            size = chance.choice((1, 2, 2, 4, 4, 8))
            order = chance.choice(("big", "little"))
            _write(data, part.body + chance.randrange(room), size, chance.choice(_NUMBERS), order)


def _write(data: bytearray, at: int, size: int, number: int, order: str) -> None:
    written = (number % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    data[at : at + size] = written[: max(len(data) - at, 0)]


def _drop(data: bytearray, part: Part, chance: random.Random) -> None:
    del data[part.start : part.end]


def _repeat(data: bytearray, part: Part, chance: random.Random) -> None:
    data[part.end : part.end] = bytes(data[part.start : part.end]) * chance.choice((1, 1, 50))
    del data[1 << 20 :]


def _empty(data: bytearray, part: Part, chance: random.Random) -> None:
    data[part.body : part.end] = bytes(part.end - part.body)


def _shorten(data: bytearray, part: Part, chance: random.Random) -> None:
    if part.end > part.body:
        del data[chance.randrange(part.body, part.end) : part.end]


def _change_place(data: bytearray, part: Part, chance: random.Random) -> None:
    other = chance.choice(parts(bytes(data)))
    moved = bytes(data[part.start : part.end])
    place = other.start if other.start <= part.start else max(other.start - len(moved), 0)
    del data[part.start : part.end]
    data[place:place] = moved


def _take_a_name(data: bytearray, part: Part, chance: random.Random) -> None:
    other = chance.choice(parts(bytes(data)))
    at = part.start + 4 if part.size_at == part.start else part.start
    from_at = other.start + 4 if other.size_at == other.start else other.start
    data[at : at + 4] = data[from_at : from_at + 4]


_KINDS: tuple[Callable[[bytearray, Part, random.Random], None], ...] = (
    _lie_about_the_size,
    _put_a_number,
    _put_a_number,
    _put_a_number,
    _drop,
    _repeat,
    _empty,
    _shorten,
    _change_place,
    _take_a_name,
)


def damage_a_part(data: bytearray, chance: random.Random) -> None:
    """Damage a part of a file in place; a file of no known parts gets a number in its head."""
    found = parts(bytes(data))
    if not found:
        size = chance.choice((1, 2, 4))
        at = chance.randrange(max(min(len(data), 128), 1))
        _write(data, at, size, chance.choice(_NUMBERS), "big")
        return
    chance.choice(_KINDS)(data, chance.choice(found), chance)
    if data[:4] == b"OggS":
        _sum_pages(data)


def _sum_pages(data: bytearray) -> None:
    """Make good the sums of Ogg's pages (RFC 3533, section 6), so that what is in them is read."""
    for page in _pages(bytes(data)):
        data[page.start + 22 : page.start + 26] = bytes(4)
        total = 0
        for byte in data[page.start : page.end]:
            total = (total << 8 ^ _TABLE[total >> 24 ^ byte]) & 0xFFFFFFFF
        data[page.start + 22 : page.start + 26] = total.to_bytes(4, "little")


def _table() -> list[int]:
    table = []
    for index in range(256):
        value = index << 24
        for _ in range(8):
            value = value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_TABLE = _table()
