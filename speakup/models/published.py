"""The models that others have published, by name, as `published.toml` pins them."""

from __future__ import annotations

import tomllib
from pathlib import Path

from speakup.models.cards import ModelCard


def _read() -> dict[str, ModelCard]:
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["model"]
    return {
        table["name"]: ModelCard(
            **table, source="package" if "package" in table else "hub", cached=False
        )
        for table in tables
    }


MODELS = _read()
"""Name -> what is known of it, but where it lies on this machine."""
