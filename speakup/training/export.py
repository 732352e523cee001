"""From a training checkpoint to a model folder that inference loads and the Hub takes as it is."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from speakup.errors import ConfigError, OutputError
from speakup.models.cards import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, ModelCard
from speakup.models.catalogue import load_model
from speakup.training.checkpoint import read_checkpoint

_MARK = "<!-- Written by speakup export, which keeps a card without this line. -->"
_HUB_LICENCES = re.compile(
    r"apache-2\.0|mit|(?:bsd-[23]-clause)|cc0-1\.0|cc-by(?:-nc)?(?:-sa|-nd)?-[234]\.0|unlicense"
    r"|(?:a|l)?gpl-[23]\.0|mpl-2\.0|openrail(?:\+\+)?"
)
"""Licences by the names that the Hub gives them; any other is its "other", with a name."""

_LANGUAGE = re.compile(r"[a-z]{2,3}")
_TAGS = {
    "denoise": ("speech-enhancement", "denoising"),
    "upsample": ("speech-enhancement", "audio-super-resolution", "bandwidth-extension"),
}


def export(
    checkpoint: Path, folder: Path, *, licence: str = "Apache-2.0", languages: Sequence[str] = ()
) -> Path:
    """Write the averaged generator of a checkpoint as half-precision safetensors with its config.

    Args:
        checkpoint: The trainer's checkpoint.pt.
        folder: The model folder to write; made if missing.
        licence: Of the weights.
        languages: ISO 639 codes of what it was trained on, for its card.

    Returns:
        The folder. The model is loaded once as a check before it replaces one that is there; a
        card that somebody has written is kept.

    Raises:
        ConfigError: a language is no code.
        ModelError: the checkpoint is missing, is none of this trainer's, or makes no model.
        OutputError: the folder cannot be written.
    """
    for language in languages:
        if not _LANGUAGE.fullmatch(language):
            raise ConfigError(f"language is {language!r}", None, "Give a code such as en or de")
    stored = read_checkpoint(checkpoint)
    weights = {key: value.half().contiguous() for key, value in stored["average"].items()}
    config = {
        key: stored[key]
        for key in ("name", "task", "architecture", "sample_rate", "hyperparameters")
    }
    config |= {"licence": licence, "description": stored["description"], "steps": stored["step"]}
    config |= {"phase": stored["phase"], "hours": round(stored["hours"], 2)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as place:
            new = Path(place)
            # Not `save_file`, which lets nobody else read the file.
            (new / WEIGHTS_FILE).write_bytes(safetensors.torch.save(weights))
            (new / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            card = load_model(str(new)).card
            names = [WEIGHTS_FILE, CONFIG_FILE]
            if _may_replace(folder / CARD_FILE):
                names.append(CARD_FILE)
                text = model_card(card, languages, config["hyperparameters"], stored["hours"])
                (new / CARD_FILE).write_text(text, encoding="utf-8")
            for name in names:
                (new / name).replace(folder / name)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", folder) from error
    return folder


def model_card(
    card: ModelCard, languages: Sequence[str], hyperparameters: Mapping[str, Any], hours: float
) -> str:
    """Write the card that the Hub shows: its front matter, what the model is, how to use it."""
    option = "denoiser" if card.task == "denoise" else "upsampler"
    rows = {
        "task": card.task,
        "sample rate": f"{card.sample_rate} Hz",
        "architecture": f"`{card.architecture}`, `{json.dumps(hyperparameters)}`",
        "weights": f"{card.parameters / 1e6:.2f} M, stored as float16 ({card.bytes / 1e6:.1f} MB)",
        "training": f"{hours:.0f} hours of audio heard",
        "licence": card.licence,
    }
    lines = [
        *_front_matter(card, languages),
        "",
        f"# {card.name}",
        "",
        _MARK,
        "",
        card.description,
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "Use it from the Hub, in place of `ORG` with who has published it:",
        "",
        "```sh",
        f"speakup enhance talk.wav --{option} hf://ORG/{card.name}",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _front_matter(card: ModelCard, languages: Sequence[str]) -> list[str]:
    """Give the YAML that the Hub reads.

    Reference: https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    licence = card.licence.lower()
    if _HUB_LICENCES.fullmatch(licence):
        stated = [f"license: {licence}"]
    else:
        stated = ["license: other", f"license_name: {json.dumps(card.licence)}"]
    spoken = ["language:", *(f"- {language}" for language in languages)] if languages else []
    return [
        "---",
        *stated,
        *spoken,
        "library_name: speakup",
        "pipeline_tag: audio-to-audio",
        "tags:",
        *(f"- {tag}" for tag in ("speakup", "speech", *_TAGS.get(card.task, ()))),
        "---",
    ]


def _may_replace(path: Path) -> bool:
    return not path.exists() or _MARK in path.read_text(encoding="utf-8", errors="replace")
