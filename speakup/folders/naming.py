"""What outputs are called: no two alike, none too long for the disk, and known again later."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import PurePath

from speakup.media.formats import is_recordings_name

MARK = "_enhanced"
"""What an output beside its source has at the end of its name, and a folder of outputs too."""

_LONGEST = 255
"""Bytes of a name that every common file system takes."""

_LONGEST_EXTENSION = 5
"""As in .flac: room for it is kept, so that a name does not depend on the format."""


def is_recording(name: str) -> bool:
    """Tell whether a folder's file is taken for a recording: by its extension, unless hidden."""
    return is_recordings_name(name) and not name.startswith(".")


def output_names(
    names: Iterable[str], extension: str | Callable[[str], str], mark: str = ""
) -> dict[str, str]:
    """Give each of a folder's recordings the name of its output; no two get the same.

    `a.mp3` becomes `a.wav`. Where `a.wav` is there as well, that one has the name, and `a.mp3`
    becomes `a.mp3.wav`; of several that all change their extension, each keeps its own so. Names
    that differ in case alone count as the same, as they do on many disks.

    Args:
        names: The recordings' names, in any order.
        extension: Of the outputs, with its dot; or what gives it for a recording's name.
        mark: What goes between name and extension.
    """
    given_extension = {
        name: extension if isinstance(extension, str) else extension(name) for name in names
    }
    plain = {
        name: _fitted(PurePath(name).stem, mark, suffix) for name, suffix in given_extension.items()
    }
    wanted = Counter(map(_same, plain.values()))

    def stays(name: str) -> bool:
        return PurePath(name).suffix.lower() == given_extension[name].lower()

    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(plain, key=lambda name: (not stays(name), name)):
        suffix = given_extension[name]
        choices = [_fitted(name, mark, suffix)]
        if stays(name) or wanted[_same(plain[name])] == 1:
            choices.insert(0, plain[name])
        number = 2
        while _same(choices[0]) in taken:
            choices.pop(0)
            if not choices:
                choices.append(_fitted(name, f" ({number}){mark}", suffix))
                number += 1
        given[name] = choices[0]
        taken.add(_same(choices[0]))
    return given


def marked_stems(name: str) -> set[str]:
    """Give the names, less extension, of what a recording's output beside it may be called."""
    return {_fitted(start, MARK, "") for start in (PurePath(name).stem, name)}


def _fitted(start: str, mark: str, extension: str) -> str:
    """Join a name, shortened if it must be; a digest of it all keeps shortened ones apart."""
    longest = _LONGEST - len(mark) - max(len(extension), _LONGEST_EXTENSION if mark else 0)
    if len(os.fsencode(start)) > longest:
        digest = "~" + hashlib.sha256(os.fsencode(start)).hexdigest()[:8]
        while len(os.fsencode(start)) > longest - len(digest):
            start = start[:-1]
        start += digest
    return f"{start}{mark}{extension}"


def _same(name: str) -> str:
    """Give what two names have in common that some disk takes for one."""
    return unicodedata.normalize("NFC", name).casefold()
