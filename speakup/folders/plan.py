"""From what a user names to jobs: which recordings, and what their outputs are called."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from speakup.config import Config
from speakup.errors import ConfigError, InputError, SpeakupError
from speakup.files import as_name
from speakup.folders.journal import JOURNAL_FILE, outputs_above, outputs_in
from speakup.folders.naming import MARK, is_recording, marked_stems, output_names
from speakup.media import recording
from speakup.media.formats import resolve_format
from speakup.models.catalogue import choose_models

_MADE_EARLIER = "an earlier run made it"


@dataclass(frozen=True)
class Job:
    """One recording to enhance.

    Attributes:
        source: The recording.
        target: What to write; None where `error` says why there is nothing to do.
        folder: The folder of outputs that the target goes into, made where it is missing, whose
            journal tells what is done; None for a single output that is named or beside its
            source.
        error: Why the recording cannot be had at all.
    """

    source: Path
    target: Path | None
    folder: Path | None = None
    error: SpeakupError | None = None


@dataclass(frozen=True)
class Plan:
    """The jobs that a list of inputs comes to, and what was left out, each with the reason."""

    jobs: tuple[Job, ...]
    left_out: tuple[tuple[Path, str], ...] = ()


def plan_jobs(
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    recursive: bool = True,
) -> Plan:
    """Find the recordings and name their outputs; only what may be a video is looked into.

    Args:
        inputs: Files, folders and glob patterns; what does not exist becomes a job that fails.
        output: A file's name for one recording; a folder (it exists, ends in a slash or has no
            extension) for any number; None puts outputs beside their sources.
        format: As `Config.format`; None takes the output's extension, a video's own, or wav.
        include: Patterns of which a folder's file must match one, in its name or its path below
            the folder.
        exclude: Patterns of which it must match none.
        recursive: Whether to go into the folder's folders.

    Raises:
        ConfigError: the output cannot hold all inputs, or two inputs would share an output.
    """
    sources = list(_expanded([as_name(item) for item in inputs]))
    into = None if output is None else Path(as_name(output))
    extension = _extensions(format)
    if output is not None and into is not None and not _is_folder(os.fspath(output)):
        if len(sources) == 1 and not os.path.isdir(sources[0]):
            return Plan((Job(sources[0], into),))
        what = "a folder" if len(sources) == 1 else f"{len(sources)} inputs"
        raise ConfigError(f"is one file's name for {what}", into, "Name a folder")

    wanted = _Choice(tuple(include), tuple(exclude), recursive)
    jobs: list[Job] = []
    left_out: list[tuple[Path, str]] = []
    outputs = set() if into is None else outputs_in(into, own=True)
    earlier = {source for source in sources if os.path.realpath(source) in outputs}
    named = [source for source in sources if not os.path.isdir(source) and source not in earlier]
    targets = _beside(named, extension) if into is None else _inside(named, into, extension)
    made = {stem for path in named for stem in _stems_beside(path)}
    for source in sources:
        if os.path.isdir(source):
            jobs += _folder_jobs(source, into, extension, wanted, left_out)
        elif source in earlier or source.parent / source.stem in made:
            left_out.append((source, _MADE_EARLIER))
        else:
            jobs.append(Job(source, targets[source], into))
    jobs = list(_once_each(jobs, left_out))
    _check_apart(jobs)
    return Plan(tuple(jobs), tuple(left_out))


def planned_models(config: Config) -> list[str]:
    """Name the models that a configuration may need, in the order of their stages."""
    return list(choose_models(config).names)


@dataclass(frozen=True)
class _Choice:
    """Which of a folder's files are meant."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    recursive: bool

    def takes(self, below: Path) -> bool:
        """Judge a file by its path below the folder."""
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
            raise ConfigError("is standard input, which is enhanced alone", item, "Give a file")
        found = [item]
        if glob.has_magic(item) and not os.path.lexists(item):
            found = sorted(glob.glob(item, recursive=True)) or [item]
        for name in found:
            place = os.path.realpath(name)
            if place not in seen:
                seen.add(place)
                yield Path(name)


_Extensions = Callable[[Path], str]
"""Gives the extension of a recording's output."""


def _extensions(format: str | None) -> _Extensions:
    """Decide on outputs' extensions: the format's, or a video's own, or else WAV's."""
    asked = resolve_format(
        Path("output"), format=format, bit_depth=None, bitrate=None, sample_rate=48_000, channels=1
    )
    if format is not None:
        return lambda source: asked.extension
    return functools.cache(lambda source: recording.kept_extension(source) or asked.extension)


def _in(folder: Path, extension: _Extensions) -> Callable[[str], str]:
    return lambda name: extension(folder / name)


def _is_folder(output: str) -> bool:
    if output == "-":
        raise ConfigError("is standard output, which takes one recording", output, "Name a file")
    ends_in_slash = output.endswith(("/", os.sep))
    return ends_in_slash or os.path.isdir(output) or not Path(output).suffix


def _beside(sources: Sequence[Path], extension: _Extensions) -> dict[Path, Path]:
    """Name the output of each named file, in the file's own folder."""
    folders: dict[Path, list[str]] = {}
    for source in sources:
        folders.setdefault(source.parent, []).append(source.name)
    named = {
        place: output_names(names, _in(place, extension), MARK) for place, names in folders.items()
    }
    return {source: source.parent / named[source.parent][source.name] for source in sources}


def _inside(sources: Sequence[Path], into: Path, extension: _Extensions) -> dict[Path, Path]:
    """Name the output of each named file, in one folder."""
    places = {source.name: source for source in sources}
    names = output_names(places, lambda name: extension(places[name]))
    return {source: into / names[source.name] for source in sources}


def _stems_beside(path: Path) -> Iterator[Path]:
    """Give the paths, less extension, that an earlier run may have written to beside a file."""
    return (path.parent / stem for stem in marked_stems(path.name))


def _folder_jobs(
    folder: Path,
    into: Path | None,
    extension: _Extensions,
    wanted: _Choice,
    left_out: list[tuple[Path, str]],
) -> Iterator[Job]:
    if into is None:
        named = folder if folder.name not in ("", "..") else folder.resolve()
        into = named.with_name(f"{named.name}{MARK}")
    count = len(left_out)
    found = 0
    for here, names in _walk(folder, os.path.realpath(into), wanted, left_out):
        if isinstance(names, Job):
            found += 1
            yield names
            continue
        below = here.relative_to(folder)
        # Named with regard to all that lie there, so that the choice changes no name.
        outputs = output_names(names, _in(here, extension))
        for name, output in sorted(outputs.items()):
            if wanted.takes(below / name):
                found += 1
                yield Job(here / name, into / below / output, into)
    if not found and len(left_out) == count:
        error = InputError("holds no recordings", folder, "Give a folder of audio files")
        yield Job(folder, None, error=error)


def _walk(
    folder: Path, target: str, wanted: _Choice, left_out: list[tuple[Path, str]]
) -> Iterator[tuple[Path, list[str] | Job]]:
    """Yield the folders below a folder in order, each with its recordings' names or its fault.

    What earlier runs made is left out, and links to folders are not followed: so no link leads
    round in a circle, or out of what was named.
    """
    unreadable: list[OSError] = []
    outputs = outputs_above(folder)
    for place, folders, files in os.walk(folder, onerror=unreadable.append):
        here = Path(place)
        within = [
            name
            for name in sorted(folders)
            if wanted.recursive
            and not name.startswith(".")
            and not (name.endswith(MARK) and name.removesuffix(MARK) in folders)
            and os.path.realpath(here / name) != target
        ]
        links = [name for name in within if os.path.islink(here / name)]
        left_out += [(here / name, "links to folders are not followed") for name in links]
        folders[:] = [name for name in within if name not in links]
        if JOURNAL_FILE in files:
            outputs |= outputs_in(here)
        recordings = sorted(filter(is_recording, files))
        beside = {stem for name in recordings for stem in marked_stems(name)}
        real = os.path.realpath(here)
        made = {
            name
            for name in recordings
            if Path(name).stem in beside or os.path.join(real, name) in outputs
        }
        left_out += [(here / name, _MADE_EARLIER) for name in recordings if name in made]
        yield here, [name for name in recordings if name not in made]
    for error in unreadable:
        path = Path(error.filename or folder)
        fault = InputError(f"cannot be read: {error.strerror}", path)
        yield path, Job(path, None, error=fault)


def _once_each(jobs: Sequence[Job], left_out: list[tuple[Path, str]]) -> Iterator[Job]:
    """Yield the jobs, but no recording twice: not by name and in its folder, nor by a link."""
    places = [os.path.realpath(job.source) for job in jobs]
    first: dict[str, Job] = {}
    placed = list(zip(places, jobs, strict=True))
    for place, job in sorted(placed, key=lambda pair: os.path.islink(pair[1].source)):
        first.setdefault(place, job)
    for place, job in placed:
        if first[place] is job:
            yield job
        else:
            other = first[place].source
            twice = (
                "it is named twice" if job.source == other else f"it is the same file as {other}"
            )
            left_out.append((job.source, twice))


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
