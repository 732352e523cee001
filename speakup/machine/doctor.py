"""What is wrong with an installation, and how to mend it."""

from __future__ import annotations

import codecs
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from speakup import __version__
from speakup.errors import SpeakupError
from speakup.machine import installation
from speakup.machine.installation import Requirement, install_command, set_command, version_of

_EXTRAS = {
    "deepfilter": "the denoiser deepfilternet3",
    "eval": "speakup evaluate",
    "train": "speakup train",
}
"""Which extras hold what a command needs."""

_UNUSED = "torchaudio"
"""Asked for, for those who expect it beside torch; no part of speakup imports it."""

_ROOM_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: "good", "note" (works, but worth knowing) or "wrong".
        detail: What was found.
        remedy: The command that mends it, or None.
    """

    name: str
    status: Literal["good", "note", "wrong"]
    detail: str
    remedy: str | None = None


@dataclass(frozen=True)
class Versions:
    """A package that speakup needs: the oldest and newest that were tried, and the one here."""

    package: str
    lowest: str
    tried: str | None
    here: str | None


def examine(
    encoding: str | None = None, *, on_error: Callable[[Exception], None] | None = None
) -> list[Finding]:
    """Look at everything that enhancing a recording needs; nothing is changed or requested.

    Args:
        encoding: Of the terminal that is to show names; None leaves it unjudged.
        on_error: Called with what no part of speakup foresees.
    """
    findings = [*_program(), *([] if encoding is None else _terminal(encoding))]
    for look in (_packages, _extras, _temporary_files):
        findings += _looked(look, on_error)
    if any(finding.status == "wrong" and finding.name != "python" for finding in findings):
        return [*findings, Finding("the rest", "note", "not looked at before that is mended")]
    for look in (_processor, _model_cache, _formats, _models):
        findings += _looked(look, on_error)
    if not any(finding.status == "wrong" and "model" in finding.name for finding in findings):
        findings += _looked(_chain, on_error)
    return findings


def _looked(
    look: Callable[[], Iterator[Finding]], on_error: Callable[[Exception], None] | None
) -> list[Finding]:
    """Take a look; whatever goes wrong in it is a finding, too."""
    name = look.__name__.strip("_").replace("_", " ")
    findings: list[Finding] = []
    try:
        findings.extend(look())  # which keeps those before a fault
    except SpeakupError as error:
        findings.append(Finding(name, "wrong", error.problem, error.remedy))
    except Exception as error:
        if on_error is not None:
            on_error(error)
        detail = f"{type(error).__name__}: {error}"
        findings.append(Finding(name, "wrong", detail, _back_to_what_was_tried()))
    return findings


def list_versions() -> list[Versions]:
    """List what speakup needs, with the versions that it was tried with."""
    tried = installation.tried_versions()
    return [
        Versions(item.name, item.lowest, tried.get(item.name), version_of(item.name))
        for item in _needed()
    ]


def _needed() -> list[Requirement]:
    return [item for item in installation.requirements() if not item.extra]


def _program() -> Iterator[Finding]:
    yield Finding("speakup", "good", f"{__version__}, in {Path(__file__).parents[1]}")
    version = platform.python_version()
    detail = f"{version}, {platform.system()} {platform.machine()}"
    first, last = installation.supported_pythons()
    if first <= sys.version_info[:2] <= last:
        yield Finding("python", "good", detail)
        return
    wanted = " to ".join(f"{major}.{minor}" for major, minor in (first, last))
    names = [f"python3.{minor}" for minor in range(last[1], first[1] - 1, -1)]
    there = next(filter(None, map(shutil.which, names)), None)
    remedy = None if there is None else installation.new_environment_command(there)
    yield Finding("python", "wrong", f"{detail}; speakup runs on {wanted}", remedy)


def _terminal(encoding: str) -> Iterator[Finding]:
    if codecs.lookup(encoding).name.startswith("utf"):
        yield Finding("terminal", "good", encoding)
        return
    detail = f"{encoding} lacks most letters; signs and names are written without them"
    yield Finding("terminal", "note", detail, set_command("PYTHONIOENCODING", "utf-8"))


def _packages() -> Iterator[Finding]:
    found = {item.name: version_of(item.name) for item in _needed()}
    used = [item for item in _needed() if item.name != _UNUSED]
    missing = [item for item in used if found[item.name] is None]
    old = [item for item in used if _too_old(found[item.name], item)]
    if missing or old:
        faults = [f"missing: {item.name}" for item in missing]
        faults += [f"{item.name} {found[item.name]} is too old" for item in old]
        remedy = install_command(*map(str, [*missing, *old]))
        yield Finding("packages", "wrong", "; ".join(faults), remedy)
        return
    listed = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    yield Finding("packages", "good", listed)
    newer = _newer_than_tried()
    if newer:
        said = ", ".join(f"{name} {found[name]} ({tried})" for name, tried in newer.items())
        yield Finding("newer packages", "note", f"than were tried: {said}")
    for item in _needed():
        yield from _loads(item, found[item.name], found["torch"])


def _too_old(version: str | None, item: Requirement) -> bool:
    return version is not None and installation.is_older(version, item.lowest)


def _loads(item: Requirement, version: str | None, torch: str | None) -> Iterator[Finding]:
    if version is None:
        yield Finding(item.name, "note", "missing, and nothing of speakup needs it")
        return
    try:
        importlib.import_module(installation.module_of(item.name))
    except Exception as error:  # a library that is missing or of another build raises OSError
        said = " ".join(str(error).split())
        if item.name == _UNUSED:
            detail = f"{version} does not load beside torch {torch}; nothing of speakup needs it"
            yield Finding(item.name, "note", detail)
            return
        tried = installation.tried_versions().get(item.name, version)
        remedy = install_command("--force-reinstall", f"{item.name}=={tried}")
        yield Finding(item.name, "wrong", f"{version} does not load ({said})", remedy)


def _newer_than_tried() -> dict[str, str]:
    return {
        item.package: item.tried
        for item in list_versions()
        if item.here and item.tried and installation.is_older(item.tried, item.here)
    }


def _back_to_what_was_tried() -> str:
    """Mend what nobody foresaw: by the versions that worked, else by looking where it came up."""
    newer = _newer_than_tried()
    if newer:
        return install_command(*(f"{name}=={version}" for name, version in newer.items()))
    return f"{set_command('SPEAKUP_DEBUG', '1')} && {installation.run_command('doctor')}"


def _extras() -> Iterator[Finding]:
    for extra, command in _EXTRAS.items():
        wanted = [item for item in installation.requirements() if item.extra == extra]
        missing = [item for item in wanted if version_of(item.name) is None]
        if missing:
            names = ", ".join(item.name for item in missing)
            detail = f"missing: {names}; {command} needs them"
            remedy = install_command(*map(str, missing))
            yield Finding(f"extra {extra}", "note", detail, remedy)
        else:
            yield Finding(f"extra {extra}", "good", "all there")


def _processor() -> Iterator[Finding]:
    import torch

    from speakup.networks.compute import pick_device, pick_dtype

    device = pick_device("auto")
    number = str(pick_dtype("auto", device)).removeprefix("torch.")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        free, total = (size / 1e9 for size in torch.cuda.mem_get_info(device))
        detail = f"{name}, {free:.0f} of {total:.0f} GB free, CUDA {torch.version.cuda}, {number}"
        yield Finding("device", "good", detail)
        return
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    level = torch.backends.cpu.get_cpu_capability()
    detail = f"CPU, cores: {cores}, threads: {threads}, {level}, {number}"
    if number == "float32":
        detail += " (no native bfloat16)"
    yield Finding("device", "good", detail)
    if torch.backends.mps.is_available():
        yield Finding("device", "note", "MPS is there, and used where it is asked for")


def _temporary_files() -> Iterator[Finding]:
    from speakup.files import temporary_folder

    folder = Path(temporary_folder())
    asked = os.environ.get("TMPDIR")
    if asked and not _may_write(Path(asked)):
        detail = f"{asked} cannot be written; {folder} is used instead"
        yield Finding("temporary files", "note", detail, set_command("TMPDIR", str(folder)))
    else:
        yield _room("temporary files", folder, "TMPDIR", "")


def _model_cache() -> Iterator[Finding]:
    from speakup.models.hub.cache import cache_folder

    cache = cache_folder()
    if _may_write(cache):
        yield _room("model cache", cache, "HF_HUB_CACHE", "huggingface")
    else:
        place = _elsewhere(cache, "huggingface")
        remedy = None if place is None else set_command("HF_HUB_CACHE", str(place))
        yield Finding("model cache", "note", f"{cache} cannot be read and written", remedy)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true"):
        yield Finding("network", "note", "HF_HUB_OFFLINE is set: no model can be fetched")


def _room(name: str, folder: Path, variable: str, below: str) -> Finding:
    """Judge the room in a folder; where it is small, name another one that has more."""
    free = _free(folder)
    detail = f"{folder}, {free / 1e9:.1f} GB free"
    if free >= _ROOM_BYTES:
        return Finding(name, "good", detail)
    place = _elsewhere(folder, below)
    remedy = None if place is None else set_command(variable, str(place))
    return Finding(name, "note", f"{detail}, and an hour of sound takes up to 1.4", remedy)


def _elsewhere(folder: Path, below: str) -> Path | None:
    """Find another folder that can be written and has room."""
    places = (tempfile.gettempdir(), "/var/tmp", os.path.expanduser("~"), os.getcwd())
    for place in map(Path, places):
        if place != folder and _may_write(place / below) and _free(place) >= _ROOM_BYTES:
            return place / below
    return None


def _free(folder: Path) -> int:
    return shutil.disk_usage(_nearest(folder)).free


def _nearest(path: Path) -> Path:
    """Give what is there of a path: itself, or the folder that it would be made in."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _may_write(folder: Path) -> bool:
    """Try to read a folder and to write into it, or into the one that it would be made in."""
    try:
        place = _nearest(folder)
        os.listdir(place)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"speakup")
    except OSError:
        return False
    return True


def _formats() -> Iterator[Finding]:
    import av
    import numpy as np
    import soundfile

    from speakup.files import TemporaryFolder
    from speakup.media import recording
    from speakup.media.formats import resolve_format
    from speakup.media.writer import AudioWriter

    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    libraries = f"libsndfile {soundfile.__libsndfile_version__}, libavcodec {ffmpeg}"
    good: list[str] = []
    bad: list[str] = []
    faults: list[Exception] = []
    rate = 48_000
    sound = np.sin(2 * np.pi * 440 * np.arange(rate // 4) / rate)[None].astype(np.float32) / 4
    with TemporaryFolder() as folder:
        for name in ("wav", "flac", "mp3", "ogg", "opus", "m4a"):
            path = folder / f"tone.{name}"
            try:
                coded = resolve_format(
                    path, format=None, bit_depth=None, bitrate=None, sample_rate=rate, channels=1
                )
                with AudioWriter(path, rate, 1, coded) as writer:
                    writer.write(sound)
                again = np.concatenate(list(recording.read_blocks(path)), axis=1)
                (good if abs(again.std() / sound.std() - 1.0) < 0.1 else bad).append(name)
            except Exception as error:  # one codec's fault is no other's
                bad.append(f"{name} ({error})")
                faults.append(error)
    yield Finding("formats", "good", f"{', '.join(good)}; {libraries}")
    if bad:
        told = (fault.remedy for fault in faults if isinstance(fault, SpeakupError))
        remedy = next(filter(None, told), None) or _tried("av", "soundfile")
        yield Finding("formats", "wrong", f"cannot write and read {', '.join(bad)}", remedy)


def _tried(*packages: str) -> str:
    """Give the command that installs packages anew, in the versions that were tried."""
    tried = installation.tried_versions()
    return install_command("--force-reinstall", *(f"{name}=={tried[name]}" for name in packages))


def _models() -> Iterator[Finding]:
    from speakup.errors import ModelError
    from speakup.models import published
    from speakup.models.catalogue import find_card, load_model
    from speakup.models.places import bundled_folder, bundled_models

    try:
        cards = bundled_models()
    except ModelError as error:
        yield Finding("models", "wrong", str(error), installation.reinstall_command())
        return
    for card in cards:
        try:
            load_model(card.name)
        except ModelError as error:
            remedy = installation.reinstall_command()
            yield Finding(f"model {card.task}", "wrong", str(error), remedy)
            continue
        size = f"{card.parameters / 1e6:.2f} M weights"
        yield Finding(f"model {card.task}", "good", f"{card.name}, {size}, {card.revision}")
    for task in {"denoise", "upsample"} - {card.task for card in cards}:
        remedy = installation.reinstall_command()
        yield Finding(f"model {task}", "wrong", f"none in {bundled_folder()}", remedy)
    here = [card.name for card in map(find_card, published.MODELS) if card.cached]
    fetched = ", ".join(here) or "none; speakup models fetch --preset studio gets the best"
    yield Finding("models fetched", "good", fetched)


def _chain() -> Iterator[Finding]:
    import numpy as np

    from speakup.pipeline import Pipeline

    rate = 16_000
    noise = np.random.default_rng(0).standard_normal((1, rate)).astype(np.float32)
    sound = 0.05 * noise * np.hanning(rate).astype(np.float32)
    restored = Pipeline().process(sound, rate)
    if restored.shape == (1, 44_100) and bool(np.isfinite(restored).all()):
        yield Finding("chain", "good", "1 s of sound went through all stages")
    else:
        detail = f"1 s of sound came out wrong, with the shape {restored.shape}"
        yield Finding("chain", "wrong", detail, _back_to_what_was_tried())
