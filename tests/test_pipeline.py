"""What the whole chain promises, from blocks to blocks and from file to file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nets import Recorded, loaded, save_model, small_extender, small_mixer
from numpy.typing import NDArray
from sounds import lag, noise, read, tones

from speakup import pipeline
from speakup.config import Config
from speakup.errors import ConfigError, InputError, ModelError, OutputError
from speakup.measure.survey import Survey
from speakup.media.recording import probe
from speakup.models.catalogue import LoadedModel
from speakup.networks.published.ap_bwe import APBWE
from speakup.pipeline import Pipeline, enhance
from speakup.result import Result
from speakup.stages import neural
from speakup.stages.base import Stage

Waveform = NDArray[np.float32]
RATE = 44_100
RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]
EXACT: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
AS_IT_IS = Config(loudness="off", upsample="always", **EXACT)


@dataclasses.dataclass
class Networks:
    """The networks that the pipeline gets, whatever models it asks for."""

    denoiser: Recorded
    upsampler: Recorded
    asked: list[str]


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Networks:
    """Replace all models by networks that change nothing, unless a test changes them."""
    found = Networks(Recorded(), Recorded(), [])

    def load(name: str, **_: Any) -> LoadedModel:
        found.asked.append(name)
        if "denoise" in name:
            return loaded(found.denoiser, "denoise", name)
        return loaded(found.upsampler, "upsample", name)

    monkeypatch.setattr(pipeline, "load_model", load)
    return found


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give model folders of the real architectures, with few random weights."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "denoiser": str(save_model(folder / "small-denoiser", small_mixer())),
        "upsampler": str(save_model(folder / "small-upsampler", small_extender())),
    }


def white(channels: int, samples: int, seed: int = 1) -> Waveform:
    return np.random.default_rng(seed).normal(0.0, 0.1, (channels, samples)).astype(np.float32)


def write(path: Path, waveform: Waveform, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, waveform.T, rate, subtype)
    return path


def cut(waveform: Waveform, seed: int) -> Iterator[Waveform]:
    lengths = np.random.default_rng(seed).integers(0, 40_000, 100)
    yield from np.split(waveform, np.minimum(np.cumsum(lengths), waveform.shape[1]), axis=1)


# Lengths and places


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("out_rate", [44_100, 48_000, "keep"])
@pytest.mark.parametrize("rate", RATES)
def test_the_length_is_that_of_the_input_to_the_sample(rate: int, out_rate: int | str) -> None:
    chain = Pipeline(dataclasses.replace(AS_IT_IS, sample_rate=out_rate))
    expected_rate = rate if out_rate == "keep" else int(out_rate)
    for samples in (1, 2, 3, 441, 10_007, 10_008, 10_009):
        result = chain.process(white(1, samples), rate)
        assert result.shape == (1, math.floor(samples * expected_rate / rate + 0.5))
        assert result.dtype == np.float32


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("rate", RATES)
def test_a_click_comes_out_where_it_went_in(rate: int) -> None:
    click = np.zeros((1, rate // 2), np.float32)
    place = rate // 4 // 50 * 50
    click[0, place] = 0.5
    for out_rate in ("keep", 48_000):
        chain = Pipeline(dataclasses.replace(AS_IT_IS, sample_rate=out_rate))
        result = chain.process(click, rate)
        expected = place if out_rate == "keep" else place * 48_000 / rate
        assert abs(int(np.abs(result[0]).argmax()) - expected) <= 0.5


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("samples", [0, 1, 441, 50_000])
def test_an_identity_gives_the_input_back(samples: int) -> None:
    waveform = white(2, samples)
    result = Pipeline(AS_IT_IS).process(waveform, RATE)
    assert result.shape == waveform.shape
    assert np.allclose(result, waveform, atol=1e-6)


def test_no_stages_give_the_input_back_bit_for_bit() -> None:
    config = Config(denoise=False, upsample="off", loudness="off", sample_rate="keep")
    waveform = white(3, 50_000)
    assert np.array_equal(Pipeline(config).process(waveform, 48_000), waveform)


# Doors to the same path


def test_process_stream_and_run_are_one_path(
    tmp_path: Path, small_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neural, "_CHUNK_SECONDS", 0.1)
    chain = Pipeline(Config(bit_depth="32f", upsample="always", **small_models, **EXACT))
    waveform = white(2, 100_003)
    whole = chain.process(waveform, 48_000)
    for seed in (1, 2):
        streamed = np.concatenate(list(chain.stream(cut(waveform, seed), 48_000)), axis=1)
        assert np.array_equal(streamed, whole)
    result = chain.run(write(tmp_path / "a.wav", waveform, 48_000), tmp_path / "b.wav")
    assert np.array_equal(read(tmp_path / "b.wav"), whole)
    assert [stage.name for stage in result.stages] == ["denoise", "upsample", "level", "loudness"]


def test_the_chain_in_chunks_is_the_chain_as_a_whole(
    small_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Pipeline(Config(upsample="always", **small_models, **EXACT))
    waveform = white(1, 3 * 48_000)
    whole = chain.process(waveform, 48_000)
    monkeypatch.setattr(neural, "_CHUNK_SECONDS", 0.1)
    error = chain.process(waveform, 48_000) - whole
    assert 10 * np.log10(np.square(error).sum() / np.square(whole).sum()) < -90.0


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, small_models: dict[str, str]) -> None:
    source = write(tmp_path / "a.wav", white(2, 60_000), 48_000)
    results = []
    for name in ("b.flac", "c.flac"):
        chain = Pipeline(Config(bit_depth="16", upsample="always", **small_models, **EXACT))
        results.append(chain.run(source, tmp_path / name))
    assert (tmp_path / "b.flac").read_bytes() == (tmp_path / "c.flac").read_bytes()
    for one, two in zip(results[0].stages, results[1].stages, strict=True):
        assert (one.name, one.model, one.revision) == (two.name, two.model, two.revision)
    assert results[0].stages[0].model == "small-denoiser"
    assert results[0].stages[0].revision.startswith("sha256:")


@pytest.mark.usefixtures("networks")
def test_what_is_given_is_not_changed() -> None:
    waveform = white(2, 30_000)
    waveform[0, 77] = np.nan
    before = waveform.copy()
    Pipeline(Config(upsample="always", **EXACT)).process(waveform, RATE)
    assert np.array_equal(waveform, before, equal_nan=True)


@pytest.mark.usefixtures("networks")
def test_waveforms_come_in_many_forms() -> None:
    chain = Pipeline(AS_IT_IS)
    waveform = white(1, 5_000)
    expected = chain.process(waveform, RATE)
    assert np.array_equal(chain.process(waveform[0], RATE), expected)
    assert np.array_equal(chain.process(waveform.astype(np.float64), RATE), expected)
    assert np.array_equal(chain.process(torch.from_numpy(waveform), RATE), expected)
    assert np.array_equal(chain.process(waveform.tolist(), RATE), expected)
    assert np.array_equal(chain.process(np.asfortranarray(waveform), RATE), expected)


@pytest.mark.parametrize(
    ("waveform", "said"),
    [
        (np.zeros((1, 2, 3), np.float32), r"\(1, 2, 3\)"),
        (np.zeros((50_000, 2), np.float32), r"\(50000, 2\)"),  # (T, C)
        (np.zeros((0, 10), np.float32), r"\(0, 10\)"),
        (np.zeros((1, 10), np.int16), "int16"),
        ([["a"]], "<U1"),
    ],
)
def test_what_is_no_waveform_is_refused(waveform: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Pipeline().process(waveform, RATE)


@pytest.mark.parametrize("rate", [0, -44_100])
def test_what_is_no_rate_is_refused(rate: int) -> None:
    with pytest.raises(ConfigError, match="the waveform.s rate is"):
        Pipeline().process(white(1, 10), rate)


def test_no_blocks_are_no_blocks() -> None:
    assert list(Pipeline().stream([], RATE)) == []
    assert list(Pipeline().stream([np.zeros((2, 0), np.float32)], RATE)) == []


def test_a_stream_left_early_leaves_nothing(
    small_models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = threading.active_count()
    result = Pipeline(Config(**small_models, **EXACT)).stream([white(1, 300_000)], RATE)
    next(result)
    result.close()
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


# Silence, no numbers, and other bad weather


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_silence_stays_silence_and_needs_no_model(networks: Networks, rate: int) -> None:
    silence = np.zeros((2, 3 * rate), np.float32)
    result = Pipeline(Config(**EXACT)).process(silence, rate)
    assert result.shape == (2, 3 * RATE)
    assert not result.any()
    assert networks.asked == []


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_silence_in_the_middle_stays_silence(networks: Networks, rate: int) -> None:
    networks.denoiser.function = networks.upsampler.function = lambda waveform: waveform + 0.01
    waveform = noise(1, 3 * rate, rate)
    waveform[:, rate : 2 * rate] = 0.0
    config = Config(upsample="always", **EXACT)
    result = Pipeline(config).process(waveform, rate)
    assert not result[:, RATE + 3_000 : 2 * RATE - 3_000].any()
    assert result[:, :RATE].any() and result[:, 2 * RATE :].any()


def test_a_network_that_gives_no_numbers_changes_nothing_and_is_named(
    networks: Networks, tmp_path: Path
) -> None:
    networks.denoiser.function = lambda waveform: waveform * math.nan
    waveform = white(2, 50_000)
    chain = Pipeline(dataclasses.replace(AS_IT_IS, bit_depth="32f"))
    result = chain.run(write(tmp_path / "a.wav", waveform), tmp_path / "b.wav")
    assert np.allclose(read(tmp_path / "b.wav"), waveform, atol=1e-6)
    (warning,) = result.warnings
    assert "denoise" in warning and "no numbers" in warning


@pytest.mark.usefixtures("networks")
def test_samples_that_are_no_numbers_count_as_silence(tmp_path: Path) -> None:
    waveform = white(1, 50_000)
    waveform[0, 100:110] = np.nan
    waveform[0, 20_000] = np.inf
    chain = Pipeline(Config(**EXACT))
    result = chain.run(write(tmp_path / "a.wav", waveform), tmp_path / "b.wav")
    assert np.isfinite(read(tmp_path / "b.wav")).all()
    assert any("11 samples were no numbers" in warning for warning in result.warnings)


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_every_rate_and_number_of_channels_comes_through(
    small_models: dict[str, str], rate: int, channels: int
) -> None:
    chain = Pipeline(Config(**small_models, **EXACT))
    result = chain.process(white(channels, rate // 2), rate)
    assert result.shape == (channels, RATE // 2)
    assert np.isfinite(result).all()
    assert np.abs(result).max() <= 1.0


@pytest.mark.parametrize(
    "waveform",
    [
        np.full((1, 1), 0.5),
        white(1, 100),
        np.full((1, 50_000), 0.5),
        np.clip(100.0 * white(1, 50_000), -1.0, 1.0),
        50.0 * white(1, 50_000),
        np.full((1, 50_000), 1e-30),
        1e-7 * white(1, 50_000),
        1e30 * white(1, 50_000),
        np.full((1, 50_000), np.finfo(np.float32).max),
    ],
    ids=["one", "few", "dc", "clipped", "loud", "denormal", "faint", "huge", "largest"],
)
@pytest.mark.filterwarnings("error")
def test_odd_recordings_come_through(small_models: dict[str, str], waveform: Waveform) -> None:
    for loudness in ("podcast", "off"):
        chain = Pipeline(Config(loudness=loudness, **small_models, **EXACT))
        result = chain.process(waveform, RATE)
        assert result.shape == waveform.shape
        assert np.isfinite(result).all()
        assert np.abs(result).max() <= 1.0


@pytest.mark.usefixtures("networks")
def test_a_faint_recording_gains_no_more_than_the_cap() -> None:
    """Near-silence must not become loud noise, nor a faint voice silence."""
    waveform = noise(1, 2 * RATE) * np.float32(0.005)
    result = Pipeline(Config(upsample="always", **EXACT)).process(waveform, RATE)
    assert np.allclose(result, waveform * 10 ** (30 / 20), rtol=1e-3, atol=1e-6)


# Channels


@pytest.mark.parametrize("channels", [2, 6])
def test_equal_channels_are_computed_once_and_stay_equal(networks: Networks, channels: int) -> None:
    waveform = np.repeat(white(1, 30_000), channels, axis=0)
    result = Pipeline(AS_IT_IS).process(waveform, RATE)
    assert np.allclose(result, waveform, atol=1e-6)
    assert {batch for batch, _ in networks.denoiser.shapes} == {1}
    assert {batch for batch, _ in networks.upsampler.shapes} == {1}


@pytest.mark.parametrize("channels", [2, 6])
def test_different_channels_stay_different(networks: Networks, channels: int) -> None:
    waveform = white(channels, 30_000)
    result = Pipeline(AS_IT_IS).process(waveform, RATE)
    assert np.allclose(result, waveform, atol=1e-6)
    # One after the other, so that many channels take no more memory than one.
    assert [batch for batch, _ in networks.denoiser.shapes] == [1] * channels


@pytest.mark.usefixtures("networks")
def test_one_gain_for_all_channels() -> None:
    waveform = noise(2, 2 * RATE)
    waveform[1] *= 0.1
    result = Pipeline(Config(upsample="always", **EXACT)).process(waveform, RATE)
    levels = np.sqrt(np.square(result).mean(axis=1) / np.square(waveform).mean(axis=1))
    assert levels[0] == pytest.approx(levels[1], rel=0.01)


@pytest.mark.usefixtures("networks")
def test_channels_are_mixed_only_if_asked() -> None:
    waveform = white(2, 30_000)
    result = Pipeline(dataclasses.replace(AS_IT_IS, channels="mono")).process(waveform, RATE)
    assert np.allclose(result, waveform.mean(axis=0, keepdims=True), atol=1e-6)


# Which stages run


def ran(networks: Networks, waveform: Waveform, rate: int = RATE, **changes: Any) -> list[str]:
    networks.asked.clear()
    config = Config(**{**EXACT, "denoiser": "denoise", "upsampler": "extend", **changes})
    Pipeline(config).process(waveform, rate)
    return networks.asked


def test_settings_choose_the_stages(networks: Networks) -> None:
    narrow = noise(1, 16_000, 16_000)
    assert ran(networks, narrow, 16_000) == ["denoise", "extend"]
    assert ran(networks, narrow, 16_000, denoise=False) == ["extend"]
    assert ran(networks, narrow, 16_000, strength=0.0) == ["extend"]
    assert ran(networks, narrow, 16_000, upsample="off") == ["denoise"]
    assert ran(networks, narrow, 16_000, upsample="off", denoise=False) == []


def test_only_what_is_missing_is_synthesised(networks: Networks) -> None:
    full = white(1, 3 * RATE) * np.float32(10.0) ** np.sin(np.arange(3 * RATE) / 1_500)
    full = full.astype(np.float32)
    assert ran(networks, full) == ["denoise"]
    assert ran(networks, full, upsample="always") == ["denoise", "extend"]


@pytest.mark.parametrize(
    ("upsample", "bandwidth_hz", "cutoff_hz"),
    [
        ("auto", 4_000.0, 4_000.0),
        ("auto", 11_000.0, 11_000.0),
        ("always", 4_000.0, 4_000.0),
        ("always", 11_000.0, 8_000.0),
        ("always", 22_050.0, 8_000.0),
    ],
)
def test_what_is_real_is_kept(
    networks: Networks, upsample: Any, bandwidth_hz: float, cutoff_hz: float
) -> None:
    heard: list[float] = []

    class Listener(Recorded):
        def forward(self, waveform: torch.Tensor, cutoff_hz: Any = None) -> torch.Tensor:
            heard.extend(cutoff_hz.tolist())
            return waveform

    networks.upsampler = Listener()
    chain = Pipeline(Config(upsample=upsample, **EXACT))
    found = Survey(RATE, 1, 1_000, -20.0, bandwidth_hz, False, True, (((), ()),), ())
    stage = chain.stage_makers()[-1](found)
    assert stage is not None
    stage.push(white(1, 1_000))
    list(stage.flush())
    assert heard == [cutoff_hz]


@pytest.mark.parametrize(("denoise", "wanted"), [(True, [7_800.0]), (False, [])])
def test_what_noise_hides_is_not_made_up(
    networks: Networks, denoise: bool, wanted: list[float]
) -> None:
    """The denoiser has restored its band; alone, the upsampler would guess what is there."""
    heard: list[float] = []

    class Listener(Recorded):
        def forward(self, waveform: torch.Tensor, cutoff_hz: Any = None) -> torch.Tensor:
            heard.extend(cutoff_hz.tolist())
            return waveform

    networks.upsampler = Listener()
    found = Survey(RATE, 1, 1_000, -20.0, 3_400.0, False, True, (((), ()),), (), hidden=True)
    stages = [maker(found) for maker in Pipeline(Config(denoise=denoise, **EXACT)).stage_makers()]
    for stage in stages[-1:]:
        if stage is not None:
            stage.push(white(1, 1_000))
            list(stage.flush())
    assert heard == wanted


def test_models_are_loaded_once(networks: Networks) -> None:
    chain = Pipeline(AS_IT_IS)
    for _ in range(2):
        chain.process(white(1, 1_000), RATE)
    assert len(networks.asked) == 2


def test_a_model_of_another_task_is_refused(small_models: dict[str, str]) -> None:
    for name, other in (("denoiser", "upsampler"), ("upsampler", "denoiser")):
        config = Config(upsample="always", **{**small_models, name: small_models[other]})
        with pytest.raises(ModelError, match="is made to"):
            Pipeline(config).process(white(1, 1_000), RATE)


def test_a_model_of_another_rate_is_refused(tmp_path: Path, small_models: dict[str, str]) -> None:
    odd = save_model(tmp_path / "odd", small_mixer(), sample_rate=24_000)
    config = Config(**{**small_models, "denoiser": str(odd)})
    with pytest.raises(ModelError, match="24000 Hz, not to denoise at 16000"):
        Pipeline(config).process(white(1, 1_000), RATE)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_an_upsampler_may_work_at_rates_of_its_own(tmp_path: Path, rate: int) -> None:
    sizes = {"channels": 8, "layers": 1}
    changes = {"task": "upsample", "architecture": "ap-bwe", "hyperparameters": sizes}
    good = save_model(tmp_path / "good", APBWE(**sizes), sample_rate=48_000, **changes)
    options: dict[str, Any] = {"denoise": False, "loudness": "off", "upsample": "always"}
    config = Config(**options, upsampler=str(good), sample_rate=44_100)
    result = Pipeline(config).process(white(2, 2 * rate), rate)
    assert result.shape == (2, 88_200) and np.isfinite(result).all()
    odd = save_model(tmp_path / "odd", APBWE(**sizes), sample_rate=44_100, **changes)
    with pytest.raises(ModelError, match="at 44100 Hz, not to upsample at 48000"):
        Pipeline(dataclasses.replace(config, upsampler=str(odd))).process(white(1, 1_000), rate)


def test_a_device_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="cuda:99"):
        Pipeline(Config(device="cuda:99"))


# A user's own stages


class Halve(Stage):
    """A stage of a user's: half the level, at a rate of its own."""

    name = "halve"

    def __init__(self, input_rate: int | None = None) -> None:
        self.input_rate = input_rate
        self.warnings: list[str] = []
        self.lengths: list[int] = []

    def push(self, block: Waveform) -> Waveform:
        self.lengths.append(block.shape[1])
        block *= np.float32(0.5)  # a stage may change its blocks: they are its own
        return block

    def flush(self) -> Iterable[Waveform]:
        self.warnings.append("halved")
        return []


@pytest.mark.parametrize("rate", [None, 44_100, 16_000])
def test_a_users_stage_is_fed_at_its_rate(tmp_path: Path, rate: int | None) -> None:
    waveform = tones(2, 50_000, 48_000)
    before = waveform.copy()
    stage = Halve(rate)
    surveys: list[Survey] = []

    def make(found: Survey) -> Stage:
        surveys.append(found)
        return stage

    def skip(found: Survey) -> None:
        return None

    config = Config(loudness="off", sample_rate="keep", bit_depth="32f")
    chain = Pipeline(config, stages=[skip, make])
    result = chain.run(write(tmp_path / "a.wav", waveform, 48_000), tmp_path / "b.wav")
    assert sum(stage.lengths) == math.floor(50_000 * (rate or 48_000) / 48_000 + 0.5)
    assert (surveys[0].sample_rate, surveys[0].samples, surveys[0].channels) == (48_000, 50_000, 2)
    assert [report.name for report in result.stages] == ["halve", "loudness"]
    assert "halved" in result.warnings
    halved = read(tmp_path / "b.wav")
    assert halved.shape == waveform.shape
    middle = slice(2_000, -2_000)
    assert np.allclose(halved[:, middle], 0.5 * waveform[:, middle], atol=1e-4)
    assert np.array_equal(waveform, before)


def test_a_stage_may_change_the_length_on_purpose() -> None:
    class FirstHalf(Halve):
        def push(self, block: Waveform) -> Waveform:
            kept = min(block.shape[1], 22_050 - sum(self.lengths))
            self.lengths.append(kept)
            return block[:, :kept]

    chain = Pipeline(Config(loudness="off"), stages=[lambda found: FirstHalf(44_100)])
    assert chain.process(white(1, 48_000), 48_000).shape == (1, 22_050)


# From file to file


@pytest.mark.usefixtures("networks")
def test_a_result_tells_what_was_done(tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", noise(2, 96_000, 48_000), 48_000)
    result = Pipeline(Config(upsample="always", **EXACT)).run(source, tmp_path / "b.flac")
    assert (result.input, result.output) == (str(source), str(tmp_path / "b.flac"))
    assert result.status == "ok"
    assert result.seconds == 2.0
    assert result.elapsed > 0.0
    assert result.speed == pytest.approx(2.0 / result.elapsed)
    assert result.channels == 2
    assert (result.sample_rate_in, result.sample_rate_out) == (48_000, 44_100)
    assert result.lufs_in is not None and result.lufs_out is not None
    assert result.lufs_out == pytest.approx(-16.0, abs=0.2)
    assert result.lufs_in + result.gain_db == pytest.approx(result.lufs_out, abs=0.7)
    assert result.true_peak_dbtp is not None and result.true_peak_dbtp <= -1.0
    assert result.bandwidth_hz is not None and 3_400.0 <= result.bandwidth_hz <= 24_000.0
    assert result.error is None
    json.dumps(result.to_json(), allow_nan=False)
    info = probe(tmp_path / "b.flac")
    assert (info.sample_rate, info.channels, info.samples) == (44_100, 2, 88_200)


@pytest.mark.usefixtures("networks")
def test_silence_is_told_as_such(tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", np.zeros((1, RATE), np.float32))
    result = Pipeline(Config(**EXACT)).run(source, tmp_path / "b.wav")
    assert result.bandwidth_hz is None
    assert result.gain_db == 0.0
    assert any("silence" in warning for warning in result.warnings)
    assert [stage.name for stage in result.stages] == ["loudness"]
    assert not read(tmp_path / "b.wav").any()


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize(
    ("rate", "wanted", "name", "expected"),
    [
        (48_000, 44_100, "b.wav", 44_100),
        (48_000, "keep", "b.wav", 48_000),
        (8_000, 48_000, "b.flac", 48_000),
        (96_000, "keep", "b.flac", 96_000),
        (44_100, 44_100, "b.opus", 48_000),
        (22_050, "keep", "b.opus", 24_000),
        (96_000, "keep", "b.mp3", 48_000),
        (192_000, "keep", "b.m4a", 96_000),
    ],
)
def test_the_rate_is_the_one_asked_for_or_the_nearest_the_format_has(
    tmp_path: Path, rate: int, wanted: int | str, name: str, expected: int
) -> None:
    waveform = noise(1, rate, rate)
    chain = Pipeline(dataclasses.replace(AS_IT_IS, sample_rate=wanted))
    result = chain.run(write(tmp_path / "a.wav", waveform, rate), tmp_path / name)
    assert result.sample_rate_out == expected
    decoded = read(tmp_path / name)
    assert abs(decoded.shape[1] - expected) <= (0 if name[2:] in ("wav", "flac", "opus") else 2_400)
    if rate == expected:
        assert lag(decoded, waveform) == 0


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("name", ["b.wav", "b.flac", "b.mp3", "b.ogg", "b.opus", "b.m4a"])
def test_tags_are_kept(tmp_path: Path, name: str) -> None:
    source = tmp_path / "a.flac"
    with soundfile.SoundFile(source, "w", RATE, 1) as file:
        file.title, file.artist = "On Silence", "A. Voice"
        file.write(noise(1, RATE).T)
    Pipeline(AS_IT_IS).run(source, tmp_path / name)
    tags = probe(tmp_path / name).tags
    assert (tags["title"], tags["artist"]) == ("On Silence", "A. Voice")


@pytest.mark.usefixtures("networks")
def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    told: dict[str, list[tuple[float, float | None]]] = {}

    def progress(doing: str, done: float, total: float | None) -> None:
        told.setdefault(doing, []).append((done, total))

    source = write(tmp_path / "a.wav", white(1, 6 * 48_000), 48_000)
    Pipeline(AS_IT_IS).run(source, tmp_path / "b.wav", progress=progress)
    assert list(told) == ["survey", "enhance", "write"]
    for steps in told.values():
        assert len(steps) > 3
        assert [total for _, total in steps] == [6.0] * len(steps)
        assert steps == sorted(steps)
        assert steps[-1][0] == pytest.approx(6.0)


def failing(tmp_path: Path, config: Config, target: Path, **options: Any) -> None:
    """Run on three seconds of noise, to a target that must be left as it is."""
    source = write(tmp_path / "source.wav", noise(1, 3 * RATE))
    before = target.read_bytes() if target.is_file() else None
    others = set(target.parent.iterdir())
    try:
        Pipeline(config, stages=options.pop("stages", None)).run(source, target, **options)
    finally:
        assert set(target.parent.iterdir()) == others
        assert (target.read_bytes() if target.is_file() else None) == before


@pytest.mark.parametrize("place", ["push", "flush"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_stage_that_fails_leaves_no_file(tmp_path: Path, place: str, exists: bool) -> None:
    class Broken(Halve):
        def push(self, block: Waveform) -> Waveform:
            if place == "push":
                raise ZeroDivisionError("in the stage")
            return block

        def flush(self) -> Iterable[Waveform]:
            raise ZeroDivisionError("in the stage")

    folder = tmp_path / "out"
    folder.mkdir()
    if exists:
        (folder / "b.wav").write_bytes(b"earlier")
    with pytest.raises(ZeroDivisionError, match="in the stage"):
        failing(tmp_path, Config(), folder / "b.wav", stages=[lambda _: Broken()], overwrite=True)


@pytest.mark.usefixtures("networks")
def working_threads() -> int:
    """Count threads, but not the one that watches over decoding children."""
    return sum(thread.name != "speakup-decoders" for thread in threading.enumerate())


@pytest.mark.parametrize("when", ["survey", "enhance", "write"])
def test_a_caller_may_stop_it_at_any_step(tmp_path: Path, when: str) -> None:
    class Stop(BaseException):
        pass

    def progress(doing: str, done: float, total: float | None) -> None:
        if doing == when:
            raise Stop

    folder = tmp_path / "out"
    folder.mkdir()
    before = working_threads()
    with pytest.raises(Stop):
        failing(tmp_path, AS_IT_IS, folder / "b.wav", progress=progress)
    assert working_threads() == before


@pytest.mark.usefixtures("networks")
def test_what_exists_is_kept_unless_asked(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.wav", noise(1, RATE)), tmp_path / "b.wav"
    target.write_bytes(b"earlier")
    result = Pipeline(AS_IT_IS).run(source, target)
    why = ("it exists; `overwrite` replaces it",)
    assert result == Result(str(source), str(target), "skipped", warnings=why)
    assert target.read_bytes() == b"earlier"
    assert Pipeline(AS_IT_IS).run(source, target, overwrite=True).status == "ok"
    assert probe(target).samples == RATE


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("how", ["same", "dots", "symbolic", "hard"])
def test_the_source_is_never_the_target(tmp_path: Path, how: str, overwrite: bool) -> None:
    source = write(tmp_path / "a.wav", noise(1, RATE))
    before = source.read_bytes()
    target = tmp_path / "b.wav"
    if how == "same":
        target = source
    elif how == "dots":
        target = tmp_path / ".." / tmp_path.name / "a.wav"
    elif how == "symbolic":
        target.symlink_to(source)
    else:
        os.link(source, target)
    with pytest.raises(OutputError, match="is the input itself"):
        Pipeline(AS_IT_IS).run(source, target, overwrite=overwrite)
    assert source.read_bytes() == before


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("out", OutputError, "is a folder"),
        ("nowhere/b.wav", OutputError, "nowhere"),
        ("source.wav/b.wav", OutputError, "source.wav"),
        ("b" * 300 + ".wav", OutputError, "too long"),
        ("b.txt", ConfigError, ".txt is not a format"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_targets_that_cannot_be_written_are_said_so(
    tmp_path: Path, name: str, error: type[Exception], said: str, overwrite: bool
) -> None:
    (tmp_path / "out").mkdir()
    source = write(tmp_path / "source.wav", noise(1, RATE))
    with pytest.raises(error, match=said):
        Pipeline(AS_IT_IS).run(source, tmp_path / name, overwrite=overwrite)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "source.wav"}


@pytest.mark.usefixtures("networks")
def test_a_full_disk_is_said_and_nothing_stays(tmp_path: Path, small_disk: Path) -> None:
    # Of FLAC a tenth of the samples' size is sure beforehand, and noise takes nearly all of it.
    source = write(tmp_path / "a.wav", noise(2, 160_000))
    with pytest.raises(OutputError, match="disk is full") as caught:
        Pipeline(AS_IT_IS).run(source, small_disk / "b.flac")
    assert caught.value.exit_code == 4
    assert list(small_disk.iterdir()) == []


@pytest.mark.usefixtures("networks")
def test_a_full_temporary_folder_is_said_and_nothing_stays(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(OutputError, match="TMPDIR") as caught:
        failing(tmp_path, AS_IT_IS, folder / "b.wav")
    assert caught.value.exit_code == 4
    with pytest.raises(OutputError, match="TMPDIR"):
        Pipeline(AS_IT_IS).process(noise(1, 5 * RATE), RATE)


EMPTY_WAV = (
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x44\xac\0\0\x88\x58\1\0\2\0\x10\0data\0\0\0\0"
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"To whom it may concern:\n" * 50, "a.wav"),
        (EMPTY_WAV, "a.wav"),
    ],
    ids=["missing", "empty", "text", "no samples"],
)
def test_inputs_that_cannot_be_read_are_said_so(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    source = tmp_path / "a.wav"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        Pipeline(AS_IT_IS).run(source, tmp_path / "b.wav")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "b.wav").exists()


@pytest.mark.usefixtures("networks")
def test_a_truncated_file_gives_what_is_there_and_a_warning(tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", noise(1, RATE), subtype="PCM_16")
    source.write_bytes(source.read_bytes()[: RATE + 44])
    result = Pipeline(AS_IT_IS).run(source, tmp_path / "b.wav")
    assert result.seconds == pytest.approx(0.5, abs=0.01)
    assert len(result.warnings) == 1


def test_a_missing_model_is_said_and_nothing_stays(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(ModelError, match="no-such-model") as caught:
        failing(tmp_path, Config(denoiser="no-such-model"), folder / "b.wav")
    assert caught.value.exit_code == 5


@pytest.mark.usefixtures("networks")
def test_samples_beyond_full_scale_are_limited_not_cut(tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", 30.0 * noise(1, RATE))
    result = Pipeline(AS_IT_IS).run(source, tmp_path / "b.wav")
    assert result.warnings == ()
    assert np.abs(read(tmp_path / "b.wav")).max() <= 1.0


# enhance()


@pytest.mark.usefixtures("networks")
def test_enhance_names_its_output(tmp_path: Path) -> None:
    source = write(tmp_path / "my.talk.wav", noise(1, RATE))
    assert enhance(source).output == str(tmp_path / "my.talk_enhanced.wav")
    result = enhance(str(source), config=Config(format="flac"))
    assert result.output == str(tmp_path / "my.talk_enhanced.flac")
    assert enhance(source).status == "skipped"
    assert enhance(source, overwrite=True).status == "ok"
    assert enhance(source, tmp_path / "b.wav").output == str(tmp_path / "b.wav")


def test_enhance_takes_a_device_where_the_configuration_names_none(tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", noise(1, 100))
    with pytest.raises(ConfigError, match="cuda:99"):
        enhance(source, device="cuda:99")
    with pytest.raises(ConfigError, match="cuda:98"):
        enhance(source, config=Config(device="cuda:98"), device="cuda:99")


@pytest.mark.parametrize("hum", [True, False])
def test_hum_goes_unless_it_is_to_stay(hum: bool) -> None:
    rate = 16_000
    time = np.arange(12 * rate) / rate
    lines = sum(np.sin(2 * np.pi * 50.0 * line * time + line) / line for line in range(1, 9))
    noise = np.random.default_rng(1).standard_normal(len(time)) * 0.001
    config = Config(denoise=False, upsample="off", loudness="off", sample_rate="keep", hum=hum)
    result = Pipeline(config).process(np.asarray(0.05 * lines + noise), rate)[0]
    left = float(np.std(result - noise)) / float(np.std(0.05 * lines))
    assert left < 0.03 if hum else left == pytest.approx(1.0, abs=1e-3)
