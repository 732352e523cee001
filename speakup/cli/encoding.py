"""Words for terminals and files that cannot show every letter."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

_PLAIN = {
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{MINUS SIGN}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": "|",
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{INFINITY}": "inf",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{EN DASH}": "-",
    "\N{BULLET}": "*",
    "\N{REPLACEMENT CHARACTER}": "?",
}
"""What stands for our own signs where an encoding lacks them."""

_BOX = {"─━═╌╍": "-", "│┃║": "|"}
_CORNERS = "╭╮╰╯┌┐└┘├┤┬┴┼╞╡╪┏┓┗┛┣┫┳┻╋┡┩╇"

_SIGNS = {
    **{ord(sign): plain for sign, plain in _PLAIN.items()},
    **{ord(line): plain for lines, plain in _BOX.items() for line in lines},
    **{ord(corner): "+" for corner in _CORNERS},
}


def adapt(out: TextIO | None, err: TextIO | None) -> None:
    """Have no letter stop a stream, whatever its encoding: our own signs have plain forms.

    Any other letter that the encoding lacks is part of a name. On `out`, where scripts read it, it
    becomes the bytes that the file system knows the name by; on `err`, a question mark.
    """
    codecs.register_error("speakup-out", _as_named)
    codecs.register_error("speakup-err", _as_seen)
    for stream, handler in ((out, "speakup-out"), (err, "speakup-err")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=handler)


def _as_named(error: UnicodeError) -> tuple[bytes | str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if plain := _SIGNS.get(ord(letter)):
        return plain, error.start + 1
    if os.name == "nt" and not 0xDC80 <= ord(letter) <= 0xDCFF:
        return "?", error.start + 1
    try:
        return os.fsencode(letter), error.start + 1
    except UnicodeEncodeError:  # half a surrogate pair, or a file system of few letters
        return "?", error.start + 1


def _as_seen(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _SIGNS.get(ord(error.object[error.start]), "?"), error.start + 1


def shows_everything(stream: TextIO | None = None) -> bool:
    """Tell whether a stream, by default standard output, can show every letter."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return codecs.lookup(encoding).name.startswith("utf")
