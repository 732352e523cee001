"""What `speakup export` writes: a folder that loads, and that the Hub takes as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub import Hub, environment, run
from huggingface_hub import RepoCard
from nets import SMALL_MIXER, small_mixer

from speakup.errors import ConfigError
from speakup.models.catalogue import load_model
from speakup.training.export import export


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Give a checkpoint of a network that was trained for no step."""
    path = tmp_path / "checkpoint.pt"
    about = {"name": "small", "task": "denoise", "architecture": "band-mixer"}
    how = {"sample_rate": 16_000, "hyperparameters": SMALL_MIXER, "step": 0}
    how |= {"phase": "small", "hours": 12.0}
    average = small_mixer(3).state_dict()
    torch.save(about | how | {"average": average, "description": "A test"}, path)
    return path


def test_an_export_is_published_as_it_is_and_loaded_from_the_hub(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = export(checkpoint, tmp_path / "small", licence="CC-BY-NC-4.0", languages=("en", "de"))
    about = RepoCard.load(folder / "README.md").data
    assert about["license"] == "cc-by-nc-4.0"
    assert about["language"] == ["en", "de"]
    assert (about["library_name"], about["pipeline_tag"]) == ("speakup", "audio-to-audio")
    assert {"speakup", "speech-enhancement", "denoising"} <= set(about["tags"])
    assert "| training | 12 hours of audio heard |" in (folder / "README.md").read_text()

    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Hub({"org/small": {"main": files}}).serving() as hub:
        variables = environment(tmp_path / "home", hub.address)
        command = ["models", "info", "hf://org/small", "--json"]
        assert run(command, variables).code == 5, "its licence wants a yes"
        found = json.loads(run([*command, "--accept-license"], variables).out)
    assert found["revision"] == hub.commit("org/small")
    ours = load_model(str(folder))
    there = load_model(found["folder"])
    waveform = 0.1 * torch.randn(1, 4_000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(ours.network(waveform), there.network(waveform))


def test_a_licence_that_the_hub_does_not_know_has_its_name(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = export(checkpoint, tmp_path / "small", licence='Our "own": licence')
    about = RepoCard.load(folder / "README.md").data
    assert (about["license"], about["license_name"]) == ("other", 'Our "own": licence')
    with pytest.raises(ConfigError, match="language is 'English'"):
        export(checkpoint, tmp_path / "small", languages=("English",))


def test_a_card_that_somebody_wrote_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    card = export(checkpoint, tmp_path / "small") / "README.md"
    export(checkpoint, tmp_path / "small", licence="MIT")
    assert "license: mit" in card.read_text()
    card.write_text("---\nlicense: mit\n---\nBy hand\n")
    export(checkpoint, tmp_path / "small")
    assert "By hand" in card.read_text()
