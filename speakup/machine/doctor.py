"""What is wrong with an installation, and how to mend it."""

from __future__ import annotations

import importlib.metadata
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

_NEEDED = (
    "torch torchaudio numpy scipy soundfile av soxr pyloudnorm typer rich huggingface-hub "
    "safetensors"
)
_EXTRAS = {"eval": "pesq pystoi speechmos onnxruntime librosa pocketsphinx matplotlib"}
_PYTHONS = ((3, 11), (3, 13))
_ROOM_BYTES = 2 * 10**9
_REINSTALL = "pip install --force-reinstall speakup, in a fresh virtual environment"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: "good", "note" (works, but worth knowing) or "wrong".
        detail: What was found.
        remedy: What to do, or None.
    """

    name: str
    status: Literal["good", "note", "wrong"]
    detail: str
    remedy: str | None = None


def examine() -> list[Finding]:
    """Look at everything that enhancing a recording needs; nothing is changed or requested."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _program,
        _packages,
        _processor,
        _folders,
        _formats,
        _models,
        _chain,
    )
    findings: list[Finding] = []
    for look in looks:
        name = look.__name__.strip("_")
        try:
            findings += look()
        except SpeakupError as error:
            findings.append(Finding(name, "wrong", error.problem, error.remedy or _REINSTALL))
        except Exception as error:  # whatever it is, the other looks go on
            detail = f"{type(error).__name__}: {error}"
            findings.append(Finding(name, "wrong", detail, _REINSTALL))
    return findings


def _program() -> Iterator[Finding]:
    yield Finding("speakup", "good", f"{__version__}, in {Path(__file__).parents[1]}")
    version = platform.python_version()
    detail = f"{version}, {platform.system()} {platform.machine()}"
    first, last = _PYTHONS
    if first <= sys.version_info[:2] <= last:
        yield Finding("python", "good", detail)
    else:
        wanted = " to ".join(f"{major}.{minor}" for major, minor in _PYTHONS)
        yield Finding("python", "wrong", detail, f"Use Python {wanted}")


def _packages() -> Iterator[Finding]:
    found, missing = _versions(_NEEDED)
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        yield Finding("packages", "wrong", f"missing: {', '.join(missing)}", remedy)
    else:
        yield Finding("packages", "good", listed)
    pair = [found.get(name, "").split("+")[0] for name in ("torch", "torchaudio")]
    if pair[0].split(".")[:2] != pair[1].split(".")[:2]:
        detail = f"torch {pair[0]} and torchaudio {pair[1]} do not belong together"
        yield Finding(
            "packages", "wrong", detail, "pip install 'torch==2.11.*' 'torchaudio==2.11.*'"
        )
    for extra, names in _EXTRAS.items():
        _, missing = _versions(names)
        if missing:
            detail = f"missing: {', '.join(missing)}; speakup evaluate needs them"
            yield Finding(f"extra {extra}", "note", detail, f"pip install 'speakup[{extra}]'")
        else:
            yield Finding(f"extra {extra}", "good", "all there")


def _versions(names: str) -> tuple[dict[str, str], list[str]]:
    found, missing = {}, []
    for name in names.split():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return found, missing


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
        yield Finding("device", "note", "MPS is there, and used with --device mps")


def _folders() -> Iterator[Finding]:
    from huggingface_hub import constants

    temporary = Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=temporary) as file:
        file.write(b"speakup")
    yield _room("temporary files", temporary, "Make room, or name another folder in TMPDIR")
    cache = Path(constants.HF_HUB_CACHE)
    place = next(path for path in (cache, *cache.parents) if path.exists())
    if os.access(place, os.W_OK):
        yield _room("model cache", cache, "Make room, or name another folder in HF_HOME")
    else:
        remedy = "Name a folder you may write to in HF_HOME"
        yield Finding("model cache", "note", f"{cache} cannot be written", remedy)
    if constants.HF_HUB_OFFLINE:
        yield Finding("network", "note", "HF_HUB_OFFLINE is set: no model can be fetched")


def _room(name: str, folder: Path, remedy: str) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    detail = f"{folder}, {free / 1e9:.1f} GB free"
    if free < _ROOM_BYTES:
        return Finding(name, "note", detail, remedy)
    return Finding(name, "good", detail)


def _formats() -> Iterator[Finding]:
    import av
    import numpy as np
    import soundfile

    from speakup.media import recording
    from speakup.media.formats import resolve_format
    from speakup.media.write import AudioWriter

    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    libraries = f"libsndfile {soundfile.__libsndfile_version__}, libavcodec {ffmpeg}"
    good: list[str] = []
    bad: list[str] = []
    rate = 48_000
    sound = np.sin(2 * np.pi * 440 * np.arange(rate // 4) / rate)[None].astype(np.float32) / 4
    with tempfile.TemporaryDirectory(prefix="speakup-") as folder:
        for name in ("wav", "flac", "mp3", "ogg", "opus", "m4a"):
            path = Path(folder) / f"tone.{name}"
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
    yield Finding("formats", "good", f"{', '.join(good)}; {libraries}")
    if bad:
        remedy = "pip install --force-reinstall av soundfile"
        yield Finding("formats", "wrong", f"cannot write and read {', '.join(bad)}", remedy)


def _models() -> Iterator[Finding]:
    from speakup.models import published
    from speakup.models.catalogue import bundled_folder, bundled_models, find_card, load_model

    cards = bundled_models()
    for card in cards:
        load_model(card.name)
        size = f"{card.parameters / 1e6:.2f} M weights"
        yield Finding(f"model {card.task}", "good", f"{card.name}, {size}, {card.revision}")
    for task in {"denoise", "upsample"} - {card.task for card in cards}:
        yield Finding(f"model {task}", "wrong", f"none in {bundled_folder()}", _REINSTALL)
    known = (find_card(model.name) for model in published.MODELS)
    here = [card.name for card in known if card is not None and card.cached]
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
        yield Finding("chain", "wrong", detail, _REINSTALL)
