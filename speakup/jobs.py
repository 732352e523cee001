"""From what a user names to jobs: which recordings, and what their outputs are called."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from speakup import audio
from speakup.config import Config
from speakup.errors import ConfigError, InputError, SpeakupError

_MARK = "_enhanced"
_RECORDING = re.compile(
    r"\.(3gp|aac|ac3|aiff?|aifc|amr|ape|au|avi|caf|flac|flv|m4[abv]|mk[av]|mov|mp[234]|mpe?g|mts"
    r"|og[agv]|opus|rf64|snd|spx|tta|w64|wave?|webm|wm[av]|wv)$",
    re.IGNORECASE,
)
"""What a folder's files are taken for recordings by; files that are named need none of them."""


@dataclass(frozen=True)
class Job:
    """One recording to enhance.

    Attributes:
        source: The recording.
        target: What to write; None where `error` says why there is nothing to do.
        makes_folder: Whether the target's folder is made where it is missing.
        error: Why the recording cannot be had at all.
    """

    source: Path
    target: Path | None
    makes_folder: bool = False
    error: SpeakupError | None = None


@dataclass(frozen=True)
class Plan:
    """The jobs that a list of inputs comes to, and the earlier outputs that were left out."""

    jobs: tuple[Job, ...]
    left_out: tuple[Path, ...] = ()


def plan_jobs(
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    recursive: bool = True,
) -> Plan:
    """Find the recordings and name their outputs, without opening any.

    Args:
        inputs: Files, folders and glob patterns; what does not exist becomes a job that fails.
        output: A file's name for one recording; a folder (it exists, ends in a slash or has no
            extension) for any number; None puts outputs beside their sources.
        format: wav, flac, mp3, ogg, opus or m4a; None takes the output's extension, or wav.
        include: Patterns of which a folder's file must match one, in its name or its path below
            the folder.
        exclude: Patterns of which it must match none.
        recursive: Whether to go into the folder's folders.

    Raises:
        ConfigError: the output cannot hold all inputs, or two inputs would share an output.
    """
    sources = list(_expanded([os.fspath(item) for item in inputs]))
    into = None if output is None else Path(output)
    extension = _extension(format)
    if output is not None and into is not None and not _is_folder(os.fspath(output)):
        if len(sources) == 1 and not sources[0].is_dir():
            return Plan((Job(sources[0], into),))
        what = "a folder" if len(sources) == 1 else f"{len(sources)} inputs"
        raise ConfigError(f"is one file's name for {what}", into, "Name a folder")

    wanted = _Choice(tuple(include), tuple(exclude), recursive)
    jobs: list[Job] = []
    left_out: list[Path] = []
    named = {path.parent / path.stem for path in sources}
    for source in sources:
        if source.is_dir():
            jobs += _folder_jobs(source, into, extension, wanted, left_out)
        elif _original(source) in named:
            left_out.append(source)
        else:
            folder = source.parent if into is None else into
            mark = _MARK if into is None else ""
            name = f"{source.stem}{mark}{extension}"
            jobs.append(Job(source, folder / name, makes_folder=into is not None))
    _check_apart(jobs)
    return Plan(tuple(jobs), tuple(left_out))


def planned_models(config: Config) -> list[str]:
    """Name the models that a configuration may need, in the order of their stages."""
    names = []
    if config.denoise and config.strength > 0.0:
        names.append(config.denoiser_name)
    if config.upsample != "off":
        names.append(config.upsampler_name)
    return names


@dataclass(frozen=True)
class _Choice:
    """Which of a folder's files are meant."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    recursive: bool

    def takes(self, below: Path) -> bool:
        """Judge a file by its path below the folder."""
        if not _RECORDING.search(below.name) or below.name.startswith("."):
            return False
        names = (below.name, below.as_posix())

        def matches(patterns: tuple[str, ...]) -> bool:
            return any(fnmatch(name, pattern) for pattern in patterns for name in names)

        return (not self.include or matches(self.include)) and not matches(self.exclude)


def _expanded(inputs: Sequence[str]) -> Iterator[Path]:
    """Yield every input once; patterns that match something are replaced by what they match."""
    seen = set()
    for item in inputs:
        if not item:
            raise ConfigError("an input's name is empty", None, "Give a file or a folder")
        if item == "-":
            raise ConfigError("standard input cannot be read yet", "-", "Give a file")
        found = [item]
        if glob.has_magic(item) and not os.path.lexists(item):
            found = sorted(glob.glob(item, recursive=True)) or [item]
        for name in found:
            place = os.path.realpath(name)
            if place not in seen:
                seen.add(place)
                yield Path(name)


def _extension(format: str | None) -> str:
    """Give the extension of a format; of WAV where none is asked for."""
    asked = audio.resolve_format(
        Path("output"), format=format, bit_depth=None, bitrate=None, sample_rate=48_000, channels=1
    )
    return asked.extension


def _is_folder(output: str) -> bool:
    if output == "-":
        raise ConfigError("standard output cannot be written yet", "-", "Name a file")
    ends_in_slash = output.endswith(("/", os.sep))
    return ends_in_slash or os.path.isdir(output) or not Path(output).suffix


def _original(path: Path) -> Path | None:
    """Give the path, less its extension, of what an earlier run would have made this from."""
    stem = path.stem
    if not stem.endswith(_MARK) or stem == _MARK:
        return None
    return path.with_name(stem.removesuffix(_MARK))


def _folder_jobs(
    folder: Path, into: Path | None, extension: str, wanted: _Choice, left_out: list[Path]
) -> Iterator[Job]:
    if into is None:
        named = folder if folder.name not in ("", "..") else folder.resolve()
        into = named.with_name(f"{named.name}{_MARK}")
    count = len(left_out)
    found = 0
    for source in _walk(folder, os.path.realpath(into), wanted, left_out):
        found += 1
        if isinstance(source, Job):
            yield source
            continue
        target = into / source.relative_to(folder)
        yield Job(source, target.with_name(f"{source.stem}{extension}"), makes_folder=True)
    if not found and len(left_out) == count:
        error = InputError("holds no recordings", folder, "Give a folder of audio files")
        yield Job(folder, None, error=error)


def _walk(folder: Path, target: str, wanted: _Choice, left_out: list[Path]) -> Iterator[Path | Job]:
    """Yield the recordings below a folder in order, but no outputs; what cannot be read, too."""
    unreadable: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unreadable.append):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if wanted.recursive
            and not name.startswith(".")
            and not (name.endswith(_MARK) and name.removesuffix(_MARK) in folders)
            and os.path.realpath(here / name) != target
        )
        stems = {Path(name).stem for name in files if _RECORDING.search(name)}
        for name in sorted(files):
            if not wanted.takes((here / name).relative_to(folder)):
                continue
            original = _original(Path(name))
            if original is not None and original.name in stems:
                left_out.append(here / name)
            else:
                yield here / name
    for error in unreadable:
        path = Path(error.filename or folder)
        yield Job(path, None, error=InputError(f"cannot be read: {error.strerror}", path))


def _check_apart(jobs: Sequence[Job]) -> None:
    """See to it that no output is another's, or another's source.

    Raises:
        ConfigError: one is.
    """
    sources = {os.path.realpath(job.source): job for job in jobs}
    targets: dict[str, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        place = os.path.realpath(job.target)
        other = targets.setdefault(place, job)
        if other is not job:
            raise ConfigError(
                f"would be written twice, from {other.source} and {job.source}",
                job.target,
                "Enhance them apart, or into different folders",
            )
        other = sources.get(place, job)
        if other is not job:
            raise ConfigError(
                f"is an input itself, and what {job.source} would be written to",
                job.target,
                "Name another folder",
            )
