"""Training: material, simulated damage, rooms, recipes, the loop, and what it exports."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nets import SMALL_EXTENDER, SMALL_MIXER, save_model, small_mixer
from numpy.typing import NDArray
from torch import Tensor

from speakup.errors import ConfigError, ModelError, OutputError
from speakup.models.catalogue import load_model
from speakup.networks import ARCHITECTURES, spectra
from speakup.training import perception, rooms, simulate, trainer
from speakup.training import recipe as recipe_module
from speakup.training.bandlimits import UpsampleRecipe
from speakup.training.checkpoint import grown as with_new_blocks
from speakup.training.checkpoint import start_from
from speakup.training.data import Corpus
from speakup.training.export import export
from speakup.training.mixtures import MixtureRecipe, MixtureSimulator
from speakup.training.objective import check_losses
from speakup.training.recipe import (
    AdversaryRecipe,
    DataRecipe,
    OptimiserRecipe,
    Recipe,
    build_recipe,
    read_recipe,
)
from speakup.training.rooms import simulate_room, vary_room
from speakup.training.simulate import (
    SPEECH_LEVEL_DB,
    DenoiseRecipe,
    DenoiseSimulator,
    convolve,
    low_pass,
    random_equaliser,
    stretched,
    synthetic_noise,
)
from speakup.training.trainer import TrainingLog, learning_rate_share, train

RATE = 16_000
LEVEL = 10.0 ** (SPEECH_LEVEL_DB / 20.0)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def voice(seconds: float, hertz: float, rate: int = RATE) -> NDArray[np.float64]:
    """Give a buzz with harmonics up to 8 kHz that comes and goes."""
    time = np.arange(round(seconds * rate)) / rate
    harmonics = np.arange(1, int(8_000 / hertz))[:, None]
    buzz = (np.sin(2 * np.pi * hertz * harmonics * time) / harmonics**0.5).sum(axis=0)
    return 0.1 * buzz * (1.1 + np.sin(2 * np.pi * 3 * time))


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of a few seconds of "speech", noise and one room."""
    root = tmp_path_factory.mktemp("material")
    random = np.random.default_rng(1)
    decay = np.exp(-np.arange(4_000) / 800) * random.standard_normal(4_000)
    decay[:10] = 0.0
    decay[10] = -5.0
    sounds = {
        "speech/a/one.wav": voice(1.5, 110),
        "speech/a/two.flac": voice(0.5, 150),
        "speech/b/three.wav": voice(1.0, 210),
        "noise/hiss/hiss.wav": 0.1 * random.standard_normal(8_000),
        "rooms/kept/room.wav": 0.15 * decay,
    }
    for name, samples in sounds.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, samples.clip(-1, 1), RATE)
    return root


def corpus(root: Path, cache: Path, *patterns: str, rate: int = RATE) -> Corpus:
    return Corpus(root, dict.fromkeys(patterns, 1.0), rate, cache)


def small_recipe(task: str = "denoise", **changes: Any) -> Recipe:
    mixer = task == "denoise"
    known: dict[str, Any] = {
        "name": "small",
        "task": task,
        "architecture": "band-mixer" if mixer else "source-filter-extender",
        "hyperparameters": SMALL_MIXER if mixer else SMALL_EXTENDER,
        "data": {
            "speech": {"speech/*": 1.0},
            "noise": {"noise/*": 1.0},
            "rooms": {"rooms/*": 1.0},
            "sample_rate": RATE if mixer else 44_100,
        },
        "optimiser": SMALL_PLAN,
        "losses": {"complex": 1.0, "magnitude": 1.0, "log_spectral": 0.1},
        "resolutions": [[512, 128]],
        "description": "A test",
    }
    return build_recipe(known | changes, "small.toml")


SMALL_PLAN: dict[str, Any] = {
    "steps": 4,
    "batch": 2,
    "micro_batch": 1,
    "segment_seconds": 0.3,
    "warmup_steps": 2,
    "decay_steps": 2,
}

GAN: dict[str, Any] = {
    "adversary": {"from_step": 1, "spectral": [[256, 128]], "periods": [3], "channels": 4},
    "losses": {"complex": 1.0, "distortion": 0.1, "adversarial": 0.5, "feature": 0.5},
}
TURNS: dict[str, Any] = GAN | {
    "adversary": {
        "from_step": 0,
        "patches": [[256, 64], [512, 128]],
        "periods": [3],
        "channels": 8,
        "in_turn": True,
        "judged": 1,
    },
}


# Material


def test_a_corpus_holds_what_its_patterns_match(material: Path, tmp_path: Path) -> None:
    both = corpus(material, tmp_path, "speech/*")
    assert [len(source) for source in both.sources] == [2, 1]
    assert both.hours == pytest.approx(3.0 / 3_600)
    assert len(corpus(material, tmp_path, "speech/a").sources) == 1
    assert corpus(material, tmp_path, "speech/a", rate=8_000).hours == pytest.approx(2.0 / 3_600)


def test_a_corpus_is_decoded_once(material: Path, tmp_path: Path) -> None:
    root = shutil.copytree(material, tmp_path / "copy")
    first = corpus(root, tmp_path / "cache", "speech/a")
    (root / "speech/a/one.wav").write_bytes(bytes((root / "speech/a/one.wav").stat().st_size))
    second = corpus(root, tmp_path / "cache", "speech/a")
    for one, two in zip(first.sources[0], second.sources[0], strict=True):
        assert np.array_equal(one, two)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


@pytest.mark.parametrize("samples", [100, 8_000, 50_000])
def test_segments_are_pieces_of_recordings(material: Path, tmp_path: Path, samples: int) -> None:
    hiss = corpus(material, tmp_path, "noise/*")
    whole = hiss.draw_whole(seeded())
    segment = hiss.draw(samples, seeded())
    assert segment.shape == (samples,) and segment.dtype == torch.float32
    repeated = whole.repeat(8)
    starts = repeated.unfold(0, min(samples, 1_000), 1)
    assert bool((starts == segment[: min(samples, 1_000)]).all(1).any())
    assert torch.equal(segment, hiss.draw(samples, seeded()))
    assert len(whole) == 8_000


def test_longer_recordings_and_heavier_sources_are_drawn_more(
    material: Path, tmp_path: Path
) -> None:
    speech = Corpus(material, {"speech/a": 3.0, "speech/b": 1.0}, RATE, tmp_path)
    drawn = [float(speech.draw(2_000, seeded(seed)).abs().sum()) for seed in range(3)]
    assert len(set(drawn)) == 3
    items = [id(speech._item(random)) for random in [seeded()] for _ in range(400)]
    counts = [items.count(id(item)) / 400 for source in speech.sources for item in source]
    assert counts == pytest.approx([0.75 * 0.75, 0.75 * 0.25, 0.25], abs=0.08)


def test_loud_recordings_are_brought_within_full_scale(tmp_path: Path) -> None:
    (tmp_path / "loud").mkdir()
    soundfile.write(tmp_path / "loud/a.wav", 3.0 * voice(0.2, 100), RATE, "FLOAT")
    soundfile.write(tmp_path / "loud/b.wav", np.zeros((0, 1)), RATE)
    loud = corpus(tmp_path, tmp_path / "cache", "loud")
    assert [len(source) for source in loud.sources] == [1]  # what is empty is left out
    assert 0.98 < float(loud.draw_whole(seeded()).abs().max()) < 1.0


def test_material_that_is_not_there_is_said_so(material: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder matches"):
        corpus(material, tmp_path, "speech/c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no recordings"):
        corpus(tmp_path, tmp_path, "empty")
    (tmp_path / "empty/a.wav").write_text("no sound")
    with pytest.raises(ConfigError, match=r"a\.wav: cannot be decoded"):
        corpus(tmp_path, tmp_path, "empty")


# Rooms


@pytest.mark.parametrize("seed", range(12))
def test_a_rooms_direct_sound_comes_first(seed: int) -> None:
    response = simulate_room(RATE, seeded(seed), seconds=0.5)
    assert response.shape == (8_000,) and response.dtype == torch.float32
    assert float(response[0]) == pytest.approx(1.0, abs=1e-6)
    assert torch.isfinite(response).all()


def test_a_voice_at_the_microphone_is_heard_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [[4.0, 3.0, 2.5], [0.5, 0.5, 0.5], [0.51, 0.5, 0.5]]
    monkeypatch.setattr(rooms, "_uniform", lambda *_: torch.tensor(draws.pop(0)))
    response = simulate_room(RATE, seeded())
    assert float(response[0]) == 1.0


@pytest.mark.parametrize("rt60_seconds", [0.2, 0.4, 0.8])
def test_a_room_decays_in_the_time_asked_for(rt60_seconds: float) -> None:
    """Three times as long as the backward integral (Schroeder 1965) takes from -15 to -35 dB."""
    measured = []
    for seed in range(8):
        response = simulate_room(RATE, seeded(seed), rt60_seconds=rt60_seconds)
        remaining = response.square().flip(0).cumsum(0).flip(0)
        level_db = 10.0 * (remaining / remaining[0]).clamp_min(1e-12).log10()
        start, end = (int((level_db < limit).nonzero()[0]) for limit in (-15.0, -35.0))
        measured.append(3.0 * (end - start) / RATE)
    assert float(np.median(measured)) == pytest.approx(rt60_seconds, rel=0.25)


@pytest.mark.parametrize("seed", range(12))
def test_a_varied_room_has_its_direct_sound_first_with_energy_one(seed: int) -> None:
    delay = 37
    room = torch.cat([torch.zeros(delay), -2.0 * simulate_room(RATE, seeded(seed))])
    before = room.clone()
    response, direct = vary_room(room, RATE, seeded(seed))
    assert torch.equal(room, before)
    assert torch.equal(response[: len(direct)], direct)
    assert len(direct) <= 0.003 * RATE
    assert float(direct.square().sum()) == pytest.approx(1.0, rel=1e-4)
    peak = int(direct.abs().argmax())
    assert peak <= 0.0005 * RATE and float(direct[peak]) > 0.0
    late_db = 10.0 * math.log10(float(response[len(direct) :].square().sum()) + 1e-12)
    assert late_db < 6.1  # direct to reverberant: -6 dB at least


# Simulated damage


def test_convolution_is_convolution() -> None:
    signal = torch.randn(3, 500, generator=seeded())
    responses = [torch.ones(1), torch.randn(40, generator=seeded(2)), torch.randn(700)]
    result = convolve(signal, responses)
    assert result.shape == signal.shape
    for row, (one, response) in enumerate(zip(signal, responses, strict=True)):
        expected = np.convolve(one.numpy(), response.numpy())[:500]
        assert np.allclose(result[row].numpy(), expected, atol=1e-4)
    assert torch.equal(convolve(signal, [torch.full((1,), 2.0)] * 3), 2.0 * signal)


def test_a_low_pass_leaves_nothing_above_and_all_below() -> None:
    signal = torch.randn(2, 44_100, generator=seeded())
    result = low_pass(signal, torch.tensor([4_000.0, 10_000.0]), torch.tensor([0.05, 0.01]), 44_100)
    for row, (cutoff, edge) in enumerate([(4_000, 3_800), (10_000, 9_900)]):
        before, after = torch.fft.rfft(signal[row]).abs(), torch.fft.rfft(result[row]).abs()
        # One bin is one hertz; the ends of the signal smear a little over the edges.
        assert float(after[cutoff + 50 :].square().mean() / before.square().mean()) < 1e-4
        low = slice(0, edge - 50)
        change = torch.fft.rfft(result[row] - signal[row])[low].abs()
        assert float(change.square().mean() / before.square().mean()) < 1e-4


def test_a_steeper_edge_begins_and_ends_where_the_other_does() -> None:
    click = torch.zeros(3, 44_100)
    click[:, 20_000] = 1.0
    exponents = torch.tensor([0.7, 1.0, 3.0])
    result = low_pass(click, torch.full((3,), 8_000.0), torch.full((3,), 0.1), 44_100, exponents)
    gain = torch.fft.rfft(result).abs()
    assert torch.allclose(gain[:, :7_150], torch.ones(()), atol=0.01)
    assert float(gain[:, 8_050:].max()) < 0.01
    # In the middle of the edge the plain one is at a half.
    assert gain[:, 7_600].tolist() == pytest.approx([0.5**0.7, 0.5, 0.5**3], abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_equalisers_are_within_bounds(seed: int) -> None:
    noise = synthetic_noise(8_001, RATE, seeded(seed))
    assert noise.shape == (8_001,) and torch.isfinite(noise).all() and bool(noise.any())
    gain_db = random_equaliser(torch.linspace(0.0, 8_000.0, 500), seeded(seed))
    assert gain_db.shape == (500,) and float(gain_db.abs().max()) < 35.0


def test_a_stretched_signal_is_the_same_at_another_speed() -> None:
    time = torch.arange(16_000) / RATE
    tone = torch.sin(2 * torch.pi * 400 * time)
    for samples in (12_000, 20_001):
        result = stretched(tone, samples)
        hertz = float(torch.fft.rfft(result).abs().argmax()) * RATE / samples
        assert len(result) == samples and hertz == pytest.approx(400 * 16_000 / samples, abs=1)
        assert float(spectra.rms(result[None])) == pytest.approx(0.5**0.5, rel=1e-2)


def denoise_pairs(
    material: Path, cache: Path, batch: int = 3, seed: int = 1, **changes: Any
) -> tuple[Tensor, Tensor]:
    nothing = dict.fromkeys(
        ("untouched", "reverb", "noise", "equaliser", "band_limit", "clipping", "pause"), 0.0
    )
    simulator = DenoiseSimulator(
        corpus(material, cache, "speech/*"),
        corpus(material, cache, "noise/*"),
        corpus(material, cache, "rooms/*"),
        corpus(material, cache, "noise/*"),  # Heard as music.
        DenoiseRecipe(**(nothing | changes)),
    )
    return simulator.draw(batch, 4_800, seeded(seed), torch.device("cpu"))


def test_pairs_are_drawn_anew_and_again(material: Path, tmp_path: Path) -> None:
    one, two, same = (
        denoise_pairs(material, tmp_path, seed=seed, noise=0.9, reverb=0.6) for seed in (1, 2, 1)
    )
    assert one[0].shape == one[1].shape == (3, 4_800)
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not torch.equal(one[0], two[0])


def test_without_damage_the_pair_is_equal_and_at_its_level(material: Path, tmp_path: Path) -> None:
    for changes in ({}, {"untouched": 1.0, "noise": 1.0}):
        degraded, clean = denoise_pairs(material, tmp_path, **changes, level_spread_db=0.0)
        assert torch.allclose(degraded, clean, atol=1e-5)
        assert spectra.rms(degraded).flatten().tolist() == pytest.approx([LEVEL] * 3, rel=1e-3)


def test_narrow_voices_are_to_be_kept_whatever_else_is_drawn(
    material: Path, tmp_path: Path
) -> None:
    degraded, clean = denoise_pairs(material, tmp_path, narrow=1.0, noise=1.0, reverb=1.0)
    assert torch.equal(degraded, clean)
    spectrum = torch.fft.rfft(clean).abs().square()
    hertz = torch.fft.rfftfreq(clean.shape[1], 1.0 / RATE)
    assert float(spectrum[:, hertz > 7_950.0].sum() / spectrum.sum()) < 1e-4


def test_noise_is_added_at_the_ratio_asked_for(material: Path, tmp_path: Path) -> None:
    for snr_db in (0.0, 20.0):
        degraded, clean = denoise_pairs(
            material, tmp_path, noise=1.0, snr_db=(snr_db, snr_db), second_noise=0.5
        )
        ratio = spectra.rms(clean) / spectra.rms(degraded - clean)
        assert (20.0 * ratio.log10()).flatten().tolist() == pytest.approx([snr_db] * 3, abs=0.1)


def test_other_speeds_and_colours_keep_the_ratio_and_differ(material: Path, tmp_path: Path) -> None:
    drawn = {"noise": 1.0, "snr_db": (6.0, 6.0), "synthetic_noise": 0.0}
    plain = denoise_pairs(material, tmp_path, **drawn)
    varied = denoise_pairs(material, tmp_path, speed=1.0, noise_variety=1.0, **drawn)
    for one, two in zip(plain, varied, strict=True):
        assert one.shape == two.shape and not torch.allclose(one, two, atol=1e-3)
    degraded, clean = varied
    ratio = 20.0 * (spectra.rms(clean) / spectra.rms(degraded - clean)).log10()
    assert ratio.flatten().tolist() == pytest.approx([6.0] * 3, abs=0.1)


def test_reverberation_comes_after_the_voice(material: Path, tmp_path: Path) -> None:
    for measured in (0.0, 1.0):
        degraded, clean = denoise_pairs(material, tmp_path, reverb=1.0, measured_room=measured)
        assert bool((spectra.rms(degraded - clean) > 0.05 * spectra.rms(clean)).all())
        lags = torch.fft.irfft(
            torch.fft.rfft(degraded, 16_384) * torch.fft.rfft(clean, 16_384).conj()
        )
        # A buzz is like itself a period later, and a strong echo may fall there.
        early, late = lags[:, :8].amax(1), lags[:, : lags.shape[1] // 2].amax(1)
        assert bool((early > 0.6 * late).all())
        assert bool((early > lags[:, -200:-8].amax(1)).all())


def test_damage_to_the_signal_keeps_its_level(material: Path, tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [{"equaliser": 1.0}, {"band_limit": 1.0}, {"clipping": 1.0}]
    for changes in kinds:
        degraded, clean = denoise_pairs(material, tmp_path, **changes)
        assert bool((spectra.rms(degraded - clean) > 0.01 * spectra.rms(clean)).all()), changes
        assert torch.allclose(spectra.rms(degraded), spectra.rms(clean), rtol=1e-2)


def test_some_voices_are_clipped_and_nothing_else(material: Path, tmp_path: Path) -> None:
    degraded, clean = denoise_pairs(
        material, tmp_path, only_clipped=1.0, noise=1.0, reverb=1.0, level_spread_db=0.0
    )
    untouched = denoise_pairs(material, tmp_path, level_spread_db=0.0)[1]
    for one, two, voice in zip(degraded, clean, untouched, strict=True):
        gain = float(spectra.rms(two[None]) / spectra.rms(voice[None]))
        assert torch.allclose(two, gain * voice, atol=1e-4)
        # A lower crest and the same waveform: each of its values follows from the voice's alone.
        assert float(one.abs().max()) < 0.95 * float(two.abs().max())
        order = two.argsort()
        assert float(one[order].diff().min()) > -1e-6


def test_music_is_to_be_kept_under_a_voice_and_alone(material: Path, tmp_path: Path) -> None:
    _, voice_alone = denoise_pairs(material, tmp_path, level_spread_db=0.0)
    for alone in (0.0, 1.0):
        degraded, clean = denoise_pairs(
            material, tmp_path, music=1.0, music_alone=alone, noise=1.0, level_spread_db=0.0
        )
        assert torch.equal(degraded, clean)
        assert bool((spectra.rms(clean - voice_alone) > 0.05 * LEVEL).all())


def test_what_drops_out_is_missing_from_the_degraded_voice_alone(
    material: Path, tmp_path: Path
) -> None:
    degraded, clean = denoise_pairs(material, tmp_path, dropout=1.0)
    lost = (degraded == 0.0) & (clean != 0.0)
    assert bool((lost.sum(1) >= 0.005 * RATE - 1).all())
    kept = degraded != 0.0
    assert torch.allclose(degraded[kept], clean[kept], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("coder", simulate.CODERS, ids=lambda coder: f"{coder[1]}-{coder[2]}")
def test_a_coder_changes_a_voice_where_it_stands(
    coder: tuple[str, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "CODERS", (coder,))
    clean = torch.from_numpy(voice(1.0, 140.0)).float()
    heard = simulate.coded(clean, RATE, seeded())
    assert len(heard) == len(clean)
    low = low_pass(clean[None], torch.tensor([3_000.0]), torch.tensor([0.1]), RATE)[0]
    low_heard = low_pass(heard[None], torch.tensor([3_000.0]), torch.tensor([0.1]), RATE)[0]
    change = float(spectra.rms(low_heard - low) / spectra.rms(low))
    assert 1e-4 < change < 0.6
    lags = torch.fft.irfft(torch.fft.rfft(low_heard, 32_768) * torch.fft.rfft(low, 32_768).conj())
    assert int(lags.argmax()) == 0


def test_an_adversary_of_impossible_width_is_said() -> None:
    adversary = AdversaryRecipe(from_step=0, bands=((512, 256),), channels=20)
    with pytest.raises(ConfigError, match="multiple of 8"):
        trainer._build_discriminators(adversary, torch.device("cpu"))


def test_a_larger_network_begins_where_the_smaller_one_ended(tmp_path: Path) -> None:
    torch.manual_seed(1)
    small = ARCHITECTURES["band-mixer"](**SMALL_MIXER)
    large = ARCHITECTURES["band-mixer"](**(SMALL_MIXER | {"dilations": [1, 2, 4]}))
    large.load_state_dict(small.state_dict(), strict=False)
    grown = ARCHITECTURES["band-mixer"](**(SMALL_MIXER | {"dilations": [1, 2, 4]}))
    grown.load_state_dict(with_new_blocks(large, small.state_dict()))
    waveform = 0.1 * torch.randn(1, 8_000)
    with torch.inference_mode():
        ended = small(waveform)
        jump, step = spectra.rms(large(waveform) - ended), spectra.rms(grown(waveform) - ended)
    assert 0.0 < float(step) < 0.2 * float(jump)


def test_a_run_can_begin_with_the_mean_of_others(tmp_path: Path) -> None:
    networks = [small_mixer(seed) for seed in range(3)]
    folders = [save_model(tmp_path / str(index), one) for index, one in enumerate(networks[:2])]
    begun = networks[2]
    start_from(begun, tuple(str(folder) for folder in folders))
    known = [load_model(str(folder)).network.state_dict() for folder in folders]
    for name, weight in begun.state_dict().items():
        assert torch.allclose(weight, (known[0][name] + known[1][name]) / 2, atol=1e-6), name
    start_from(begun, str(folders[1]))
    assert equal(dict(begun.state_dict()), dict(known[1]))
    other = save_model(tmp_path / "other", ARCHITECTURES["band-extender"](**SMALL_EXTENDER))
    with pytest.raises(ModelError, match="other"):
        start_from(begun, (str(folders[0]), str(other)))


def test_pauses_are_silent_in_the_clean_voice(material: Path, tmp_path: Path) -> None:
    _, clean = denoise_pairs(material, tmp_path, pause=1.0)
    assert bool(((clean == 0.0).sum(1) > 500).all())


def test_a_denoiser_can_do_without_recorded_noise_and_rooms(material: Path, tmp_path: Path) -> None:
    nothing = Corpus(material, {}, RATE, tmp_path)
    simulator = DenoiseSimulator(
        corpus(material, tmp_path, "speech/*"),
        nothing,
        nothing,
        nothing,
        DenoiseRecipe(noise=1.0, reverb=1.0, music=1.0),
    )
    degraded, _ = simulator.draw(4, 4_800, seeded(), torch.device("cpu"))
    assert torch.isfinite(degraded).all()


# Recipes


RECIPE = """
name = "small"
task = "denoise"
architecture = "band-mixer"
resolutions = [[512, 128], [1024, 256]]
[hyperparameters]
groups = [[16, 4], [8, 8], [8, 16]]
dilations = [1, 2]
[data]
speech = { "speech/*" = 1.0 }
[optimiser]
steps = 3
[losses]
complex = 1.0
[adversary]
from_step = 2
spectral = [[256, 64]]
"""


def test_a_recipe_is_read_into_its_fields(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(RECIPE)
    recipe = read_recipe(tmp_path / "a.toml")
    assert recipe.data == DataRecipe({"speech/*": 1.0})
    (phase,) = recipe.phases
    assert (phase.name, phase.steps, phase.seed, phase.start) == ("small", 3, 0, ())
    assert phase.resolutions == ((512, 128), (1_024, 256))
    assert phase.optimiser == OptimiserRecipe(steps=3)
    assert phase.adversary == AdversaryRecipe(2, spectral=((256, 64),))


PHASES = """
[[phase]]
name = "easy"
hours = 2
seed = 5
optimiser = { steps = 0, batch = 10, segment_seconds = 6.0 }

[[phase]]
name = "hard"
start = "easy"
simulation = { room = 0.5 }
losses = { complex = 0.0, magnitude = 2.0 }
optimiser = { learning_rate = 0.5 }
"""


def test_phases_change_single_keys_of_what_holds_for_all(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(RECIPE + PHASES)
    easy, hard = read_recipe(tmp_path / "a.toml").phases
    assert easy.steps == 120  # two hours are 7,200 s; a step hears 60
    assert easy.step_hours * easy.steps == pytest.approx(2.0)
    assert (easy.losses, hard.losses) == ({"complex": 1.0}, {"magnitude": 2.0})
    assert hard.optimiser == OptimiserRecipe(steps=3, learning_rate=0.5)
    assert (easy.start, hard.start) == ((), ("easy",))
    assert (easy.simulation, hard.simulation) == ({}, {"room": 0.5})
    assert easy.adversary == hard.adversary == AdversaryRecipe(2, spectral=((256, 64),))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"hard"', '"easy"', "two phases of one name"),
        ("steps = 0, ", "", "either steps or hours"),
        ("hours = 2", "", "either steps or hours"),
        ("seed = 5", "sead = 5", "unknown key sead"),
        ("batch = 10", 'kind = "adam"', "Choose adamw or muon"),
    ],
)
def test_a_phase_with_a_mistake_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PHASES
    (tmp_path / "a.toml").write_text(RECIPE + PHASES.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        read_recipe(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name =", "nmae =", "unknown key nmae"),
        ("steps = 3", "steps = 3\nstep = 4", r"\[optimiser\]: unknown key step"),
        ("speech = {", "speach = {", r"\[data\]: unknown key speach"),
        ("from_step = 2", "", r"\[adversary\]: a key is missing"),
        ('task = "denoise"\n', "", "a key is missing"),
        ('task = "denoise"', 'task = "sing"', "Choose denoise or upsample"),
        ("name =", "name", "is not a TOML recipe"),
        ('speech = { "speech/*" = 1.0 }', "speech = {}", "names no speech"),
        ("[adversary]\nfrom_step = 2\nspectral = [[256, 64]]", "", ""),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in RECIPE
    (tmp_path / "a.toml").write_text(RECIPE.replace(old, new))
    if not said:
        assert read_recipe(tmp_path / "a.toml").phases[0].adversary is None
        return
    with pytest.raises(ConfigError, match=said):
        read_recipe(tmp_path / "a.toml")


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not a TOML recipe"):
        read_recipe(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("data = 3\n" + RECIPE.replace("[data]\n", "[losses2]\n"))
    with pytest.raises(ConfigError, match="is no table"):
        read_recipe(tmp_path / "b.toml")


RECIPES = sorted((Path(recipe_module.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_come_along_can_be_trained(path: Path) -> None:
    recipe = read_recipe(path)
    network = ARCHITECTURES[recipe.architecture](**recipe.hyperparameters)
    assert sum(weight.numel() for weight in network.parameters()) > 100_000
    kind = MixtureRecipe if recipe.task == "denoise" else UpsampleRecipe
    for phase in recipe.phases:
        check_losses(phase.losses, phase.name)
        recipe_module.build(kind, phase.simulation, "[simulation]")


# The loop


def stored(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return torch.equal(one, two) if isinstance(one, Tensor) else one == two


@pytest.mark.parametrize("task", ["denoise", "upsample"])
def test_two_steps_change_the_weights_and_are_told(
    material: Path, tmp_path: Path, task: str
) -> None:
    recipe = small_recipe(task, optimiser=SMALL_PLAN | {"steps": 2})
    told: list[TrainingLog] = []
    checkpoint = train(recipe, material, tmp_path / "run", on_log=told.append, log_every=1)
    assert checkpoint == tmp_path / "run" / "checkpoint.pt"
    assert [entry.step for entry in told] == [1, 2]
    assert set(told[0].losses) == {"complex", "magnitude", "log_spectral", "gradient_norm"}
    assert all(math.isfinite(value) for value in told[1].losses.values())
    assert told[0].audio_seconds_per_second > 0.0
    after = stored(checkpoint)
    assert after["step"] == 2
    torch.manual_seed(0)
    before = ARCHITECTURES[recipe.architecture](**recipe.hyperparameters).state_dict()
    changed = [key for key in before if not torch.equal(before[key], after["generator"][key])]
    assert len(changed) == len(before)
    assert not any(torch.equal(after["average"][key], after["generator"][key]) for key in before)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.pt", "phases"}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, GAN, TURNS], ids=["regression", "gan", "in turn"])
@pytest.mark.parametrize("stopped", [1, 2, 3], ids=["in the first", "between", "in the second"])
def test_a_resumed_run_is_an_unbroken_one_bit_for_bit(
    material: Path, tmp_path: Path, changes: dict[str, Any], kind: str, stopped: int
) -> None:
    """Stopped within a phase, or when one is done and the next has not yet begun."""
    plan = SMALL_PLAN | {"steps": 2, "kind": kind, "edges": ["split", "join"]}
    phases = [{"name": "one", "seed": 1}, {"name": "two", "seed": 2}]
    recipe = small_recipe(**changes, optimiser=plan, phase=phases)
    unbroken = train(recipe, material, tmp_path / "unbroken")

    class Stop(Exception):
        pass

    told: list[TrainingLog] = []

    def stop(entry: TrainingLog) -> None:
        told.append(entry)
        if len(told) == stopped + 1:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, material, tmp_path / "broken", on_log=stop, log_every=1, save_seconds=0.0)
    torch.manual_seed(99)
    resumed = train(recipe, material, tmp_path / "broken")
    assert equal(stored(resumed), stored(unbroken))


def test_a_resumed_run_draws_what_its_network_would_have_drawn(
    material: Path, tmp_path: Path
) -> None:
    """The upsampler's noise begins elsewhere in every step."""
    longer = SMALL_PLAN | {"steps": 3}
    unbroken = train(small_recipe("upsample", optimiser=longer), material, tmp_path / "one")
    run = tmp_path / "two"

    class Stop(Exception):
        pass

    def stop(entry: TrainingLog) -> None:
        if entry.step == 2:
            raise Stop

    with pytest.raises(Stop):
        recipe = small_recipe("upsample", optimiser=longer)
        train(recipe, material, run, on_log=stop, log_every=1, save_seconds=0.0)
    torch.manual_seed(99)
    resumed = train(small_recipe("upsample", optimiser=longer), material, run)
    assert equal(stored(resumed), stored(unbroken))


def test_a_seed_decides_what_is_drawn(material: Path, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> list[dict[str, float]]:
        recipe = small_recipe(seed=seed)
        told: list[TrainingLog] = []
        train(recipe, material, tmp_path / name, on_log=told.append, log_every=1)
        return [entry.losses for entry in told]

    assert run("one", 1) == run("again", 1)
    first, second = run("other", 2), run("one more", 3)
    assert all(one["complex"] != two["complex"] for one, two in zip(first, second, strict=True))
    seeds = {trainer.draw_seed(seed, step) for seed in range(20) for step in range(200)}
    assert len(seeds) == 4_000 and max(seeds) < 2**32


def test_a_finished_run_stays_as_it_is(material: Path, tmp_path: Path) -> None:
    checkpoint = train(small_recipe(), material, tmp_path / "run")
    before = checkpoint.read_bytes()
    told: list[TrainingLog] = []
    train(small_recipe(), material, tmp_path / "run", on_log=told.append, log_every=1)
    assert checkpoint.read_bytes() == before and told == []


def test_discriminators_learn_from_their_step_on(material: Path, tmp_path: Path) -> None:
    told: list[TrainingLog] = []
    recipe = small_recipe(**GAN)
    checkpoint = train(recipe, material, tmp_path / "run", on_log=told.append, log_every=1)
    adversarial = {"discriminator", "adversarial", "feature"}
    assert not adversarial & set(told[0].losses)
    assert all(adversarial <= set(entry.losses) for entry in told[1:])
    torch.manual_seed(0)
    before = trainer._build_state(recipe, recipe.phases[0], torch.device("cpu")).discriminators
    assert before is not None
    after = stored(checkpoint)["discriminators"]
    assert not any(torch.equal(after[key], weight) for key, weight in before.state_dict().items())


def test_a_run_can_go_on_with_discriminators(material: Path, tmp_path: Path) -> None:
    train(small_recipe(), material, tmp_path / "run")
    longer = small_recipe(**GAN, optimiser=SMALL_PLAN | {"steps": 5})
    assert stored(train(longer, material, tmp_path / "run"))["step"] == 5


def test_no_numbers_teach_nothing(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that comes out as no numbers must not spoil generator or discriminators."""
    draw = MixtureSimulator.draw

    def broken(*arguments: Any) -> tuple[Tensor, Tensor]:
        degraded, clean = draw(*arguments)
        return degraded * math.nan, clean

    monkeypatch.setattr(MixtureSimulator, "draw", broken)
    weights = stored(train(small_recipe(**GAN), material, tmp_path / "run"))
    for part in ("generator", "average", "discriminators"):
        assert all(torch.isfinite(weight).all() for weight in weights[part].values())


def test_the_learning_rate_warms_up_holds_and_decays() -> None:
    plan = OptimiserRecipe(warmup_steps=10, decay_steps=20, final_share=0.1)
    shares = [learning_rate_share(step, 100, plan) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10:80] == [1.0] * 70
    assert shares[90] == pytest.approx(0.5)
    assert shares[99] == 0.1
    assert all(one >= two for one, two in zip(shares[80:], shares[81:], strict=False))
    whole = OptimiserRecipe(warmup_steps=0, decay_steps=1_000)
    assert learning_rate_share(0, 100, whole) == 1.0
    assert learning_rate_share(50, 100, whole) == 0.5
    assert learning_rate_share(54, 100, plan, renewed=50) == 0.5


def test_a_branch_of_one_phase_begins_with_another_runs_checkpoint(
    material: Path, tmp_path: Path
) -> None:
    phases = [{"name": "long"}, {"name": "settle"}]
    recipe = small_recipe(phase=phases)
    long = train(recipe, material, tmp_path / "long", only="long")
    before = stored(long)
    assert (before["phase"], before["step"]) == ("long", 4)
    branch = stored(train(recipe, material, tmp_path / "branch", only="settle", start=long))
    assert (branch["phase"], branch["step"]) == ("settle", 4)
    assert branch["hours"] == pytest.approx(2 * before["hours"]) and before["hours"] > 0.0
    whole = stored(train(recipe, material, tmp_path / "long"))
    assert equal(branch, whole)
    with pytest.raises(ConfigError, match="has no phase 'short'"):
        train(recipe, material, tmp_path / "long", only="short")


def test_a_run_goes_on_from_exported_weights_where_they_were_made(
    material: Path, tmp_path: Path
) -> None:
    """As on a new machine: phases before are not run again, and the rate warms up anew."""
    phases = [{"name": "one"}, {"name": "two", "seed": 2}, {"name": "three"}]
    recipe = small_recipe(phase=phases)
    train(recipe, material, tmp_path / "old", only="one")
    part = small_recipe(phase=phases, optimiser=SMALL_PLAN | {"steps": 2})
    resumed_at = train(part, material, tmp_path / "old", only="two")
    folder = export(resumed_at, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    hours = 6 * 2 * 0.3 / 3_600
    assert (config["phase"], config["steps"]) == ("two", 2)
    told: list[TrainingLog] = []
    train(recipe, material, tmp_path / "new", start=folder, on_log=told.append, log_every=1)
    assert [(entry.phase, entry.step) for entry in told] == [
        ("two", 3),
        ("two", 4),
        *(("three", step) for step in (1, 2, 3, 4)),
    ]
    assert told[0].hours == pytest.approx(hours + 2 * 0.3 / 3_600, abs=0.006)
    again: list[TrainingLog] = []
    train(recipe, material, tmp_path / "new", on_log=again.append, log_every=1)
    assert not again


def test_a_phase_can_begin_with_the_mean_of_others(material: Path, tmp_path: Path) -> None:
    still = {"learning_rate": 0.0, "steps": 1}
    phases = [
        {"name": "one", "seed": 1},
        {"name": "two", "seed": 2, "start": []},
        {"name": "both", "start": ["one", "two"], "optimiser": still},
    ]
    mean = stored(train(small_recipe(phase=phases), material, tmp_path / "run"))["generator"]
    one, two = (stored(tmp_path / f"run/phases/{name}.pt")["average"] for name in ("one", "two"))
    assert all(torch.allclose(mean[key], (one[key] + two[key]) / 2, atol=1e-6) for key in mean)


def test_costly_listeners_hear_a_part_for_the_whole(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second of four micro-batches is judged, and its gradient counts twice."""
    heard: list[int] = []
    listen = perception.intelligibility_loss

    def counted(estimate: Tensor, reference: Tensor) -> Tensor:
        heard.append(len(estimate))
        return listen(estimate, reference)

    monkeypatch.setattr(perception, "intelligibility_loss", counted)
    plan = SMALL_PLAN | {"steps": 1, "batch": 4, "segment_seconds": 1.0, "costly_every": 2}
    losses = {"complex": 1.0, "intelligibility": 1.0}
    told: list[TrainingLog] = []
    recipe = small_recipe(optimiser=plan, losses=losses)
    train(recipe, material, tmp_path / "run", on_log=told.append, log_every=1)
    assert heard == [1, 1]
    assert 0.0 < told[0].losses["intelligibility"] < 1.5


@pytest.mark.parametrize("kind", ["folder", "checkpoint"])
def test_training_starts_from_other_weights(material: Path, tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        start = save_model(tmp_path / "model", small_mixer(7))
        expected = load_model(str(start)).network.state_dict()
    else:
        start = train(small_recipe(), material, tmp_path / "first")
        expected = stored(start)["average"]
    still = SMALL_PLAN | {"steps": 1, "learning_rate": 0.0}
    recipe = small_recipe(start=str(start), optimiser=still)
    weights = stored(train(recipe, material, tmp_path / "second"))["generator"]
    assert equal(dict(weights), dict(expected))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "transformer"}, "architecture is 'transformer'"),
        ({"hyperparameters": {"layers": 3}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"features": -2}}, "make no network"),
        ({"losses": {"complex": 1.0, "beauty": 1.0}}, "unknown loss beauty"),
        ({"losses": {"adversarial": 1.0}}, "has no loss for the steps before"),
        ({"data": {"speech": {"nowhere": 1.0}}}, "no folder matches"),
        ({"simulation": {"echo": 1.0}}, "unknown key echo"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_said_so(
    material: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        train(small_recipe(**changes), material, tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more", None])
def test_a_broken_checkpoint_is_said_so(
    material: Path, tmp_path: Path, content: bytes | None
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if content is None:
        torch.save({"step": 3}, run / "checkpoint.pt")
    else:
        (run / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ModelError, match="is no checkpoint"):
        train(small_recipe(), material, run)
    with pytest.raises(ModelError, match="is no checkpoint"):
        export(run / "checkpoint.pt", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_another_recipes_checkpoint_is_not_gone_on_with(material: Path, tmp_path: Path) -> None:
    train(small_recipe(), material, tmp_path / "run")
    other = small_recipe(hyperparameters=SMALL_MIXER | {"features": 12})
    with pytest.raises(ModelError, match="belongs to another recipe"):
        train(other, material, tmp_path / "run")


# Export


def test_what_is_exported_is_the_averaged_generator(material: Path, tmp_path: Path) -> None:
    checkpoint = train(small_recipe(), material, tmp_path / "run")
    folder = export(checkpoint, tmp_path / "models" / "small", licence="CC-BY-4.0")
    found = load_model(str(folder))
    names = {"README.md", "config.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    assert (found.card.name, found.card.task, found.card.licence) == (
        "small",
        "denoise",
        "CC-BY-4.0",
    )
    assert (found.card.sample_rate, found.card.description) == (RATE, "A test")
    assert json.loads((folder / "config.json").read_text())["steps"] == 4
    averaged = ARCHITECTURES["band-mixer"](**SMALL_MIXER).eval()
    averaged.load_state_dict(stored(checkpoint)["average"])
    waveform = 0.1 * torch.randn(1, 8_000, generator=seeded())
    with torch.inference_mode():
        exact, result = averaged(waveform), found.network(waveform)
        assert torch.equal(averaged.half().float()(waveform), result)
    assert float(spectra.rms(result - exact) / spectra.rms(exact)) < 1e-3
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o044 == 0o044 or path.stat().st_mode & 0o077 == 0


def test_an_export_replaces_what_was_there(material: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", small_mixer(3))
    export(train(small_recipe(), material, tmp_path / "run"), folder)
    assert load_model(str(folder)).card.description == "A test"


def test_exports_that_cannot_be_made_are_said_so(material: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        export(tmp_path / "missing.pt", tmp_path / "model")
    checkpoint = train(small_recipe(), material, tmp_path / "run")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export(checkpoint, tmp_path / "file" / "model")
