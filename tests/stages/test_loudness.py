"""Delivery targets and the gains planned for them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.signal import lfilter

from speakup.errors import ConfigError
from speakup.measure.delivery import DeliveryTarget, resolve_target
from speakup.measure.loudness import LoudnessMeter
from speakup.stages.limiter import Limiter
from speakup.stages.loudness import MAX_GAIN_DB, GainPlan, plan_gain, settle_gain

RATE = 16_000


def measured(signal: np.ndarray) -> LoudnessMeter:
    meter = LoudnessMeter(RATE, signal.shape[0])
    meter.push(signal.astype(np.float32))
    return meter


def speechlike(peakiness: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(5)
    time = np.arange(8 * RATE) / RATE
    noise = lfilter([1.0], [1.0, -0.9], random.standard_normal(len(time)))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time), 0.0, None) ** peakiness
    pauses = np.where(time % 4 < 3, 1.0, 1e-3)
    return (0.02 * noise * syllables * pauses)[None]


def target(text: str, true_peak: float | None = None) -> DeliveryTarget:
    found = resolve_target(text, true_peak)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "lufs", "true_peak"),
    [
        ("podcast", -16.0, -1.0),
        ("spotify", -14.0, -1.0),
        ("youtube", -14.0, -1.0),
        ("ebu", -23.0, -1.0),
        ("aes", -18.0, -1.0),
        ("-19.5", -19.5, -1.0),
        (" Podcast ", -16.0, -1.0),
        ("\N{MINUS SIGN}20", -20.0, -1.0),
    ],
)
def test_targets_by_name_and_number(name: str, lufs: float, true_peak: float) -> None:
    found = target(name)
    assert (found.lufs, found.true_peak_dbtp, found.rms_dbfs) == (lufs, true_peak, None)


def test_acx_prescribes_rms_peak_and_floor() -> None:
    found = target("acx")
    assert found.lufs is None
    assert (found.rms_dbfs, found.true_peak_dbtp, found.floor_dbfs) == ((-23.0, -18.0), -3.0, -60.0)


def test_off_and_own_ceiling() -> None:
    assert resolve_target("off", None) is None
    assert target("podcast", -2.0).true_peak_dbtp == -2.0
    assert target("acx", -1.0).true_peak_dbtp == -1.0


@pytest.mark.parametrize("text", ["loud", "", "nan", "3", "-61", "inf", "-16 LUFS please"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="podcast, spotify") as caught:
        resolve_target(text, None)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["podcast", "ebu", "-30"])
def test_the_planned_gain_reaches_the_target(name: str) -> None:
    signal = speechlike()
    plan = plan_gain(measured(signal), target(name))
    assert plan.warnings == []
    amplified = measured(signal * 10 ** (plan.gain_db / 20))
    assert amplified.integrated_lufs() == pytest.approx(target(name).lufs, abs=0.01)


def test_acx_aims_at_the_middle_of_its_range_and_watches_the_floor() -> None:
    quiet_room = speechlike()
    plan = plan_gain(measured(quiet_room), target("acx"))
    assert plan.warnings == []
    amplified = measured(quiet_room * 10 ** (plan.gain_db / 20))
    assert amplified.rms_dbfs() == pytest.approx(-20.5, abs=0.01)
    hiss = 2e-3 * np.random.default_rng(1).standard_normal(quiet_room.shape)
    noisy = plan_gain(measured(quiet_room + hiss), target("acx"))
    assert len(noisy.warnings) == 1
    assert "noise floor" in noisy.warnings[0]


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (np.zeros((1, RATE)), "digital silence"),
        (np.zeros((1, 0)), "digital silence"),
        (np.full((1, 1), 0.5), "400 ms"),
        (0.1 * np.sin(np.arange(RATE // 5))[None], "400 ms"),
        (1e-5 * np.sin(np.arange(RATE))[None], "-70 LUFS"),
    ],
)
@pytest.mark.parametrize("name", ["podcast", "acx"])
def test_nothing_to_measure_gets_no_gain_and_a_warning(
    signal: np.ndarray, words: str, name: str
) -> None:
    plan = plan_gain(measured(signal), target(name))
    assert plan.gain_db == 0.0
    assert len(plan.warnings) == 1
    assert words in plan.warnings[0]


@pytest.mark.parametrize("name", ["podcast", "acx"])
def test_huge_gains_are_capped_with_a_warning(name: str) -> None:
    faint = measured(speechlike() * 10 ** (-35 / 20))
    plan = plan_gain(faint, target(name))
    assert plan.gain_db == MAX_GAIN_DB
    assert "30 dB and no more" in plan.warnings[0]
    assert plan_gain(faint, target(name), max_gain_db=6.0).gain_db == 6.0


def test_attenuation_has_no_limit() -> None:
    plan = plan_gain(measured(speechlike() * 1000.0), target("podcast"))
    assert plan.gain_db < -30.0
    assert plan.warnings == []


def through_gain_and_limiter(signal: np.ndarray, plan: GainPlan, ceiling: float) -> LoudnessMeter:
    limiter = Limiter(RATE, 1, ceiling)
    louder = (signal * 10 ** (plan.gain_db / 20)).astype(np.float32)
    return measured(np.concatenate([limiter.push(louder), limiter.flush()], axis=1))


def halves(signal: np.ndarray) -> Iterator[np.ndarray]:
    yield from np.array_split(signal.astype(np.float32), 2, axis=1)


def test_settled_gain_takes_back_what_was_too_much() -> None:
    """With few gating blocks the relative gate jumps, and a correction can go too far."""
    random = np.random.default_rng(67)
    level = np.repeat(random.choice([0.003, 0.03, 0.1, 0.3], 12), RATE // 4)
    signal = (level * random.laplace(size=len(level)))[None]
    meter, wanted = measured(signal), target("podcast")
    settled = settle_gain(plan_gain(meter, wanted), wanted, meter, lambda: halves(signal))
    result = through_gain_and_limiter(signal, settled, -1.0)
    assert result.integrated_lufs() == pytest.approx(-16.0, abs=0.3)


def test_settled_gain_makes_up_for_the_limiter() -> None:
    signal, wanted = speechlike(), target("podcast", -1.0)
    meter = measured(signal)
    plan = plan_gain(meter, wanted)
    lost = through_gain_and_limiter(signal, plan, -1.0).integrated_lufs()
    assert lost < -16.5
    settled = settle_gain(plan, wanted, meter, lambda: halves(signal))
    result = through_gain_and_limiter(signal, settled, -1.0)
    assert result.integrated_lufs() == pytest.approx(-16.0, abs=0.06)
    assert result.true_peak_dbtp() <= -1.0


def test_acx_is_settled_by_its_rms() -> None:
    signal, wanted = speechlike(peakiness=2.0), target("acx")
    meter = measured(signal)
    plan = plan_gain(meter, wanted)
    assert through_gain_and_limiter(signal, plan, -3.0).rms_dbfs() < -20.7
    settled = settle_gain(plan, wanted, meter, lambda: halves(signal))
    result = through_gain_and_limiter(signal, settled, -3.0)
    assert result.rms_dbfs() == pytest.approx(-20.5, abs=0.06)


def test_settling_gives_up_before_the_limiter_is_heard() -> None:
    signal, wanted = speechlike(peakiness=4.0) * 4.0, target("-5", -6.0)
    meter = measured(signal)
    plan = plan_gain(meter, wanted)
    settled = settle_gain(plan, wanted, meter, lambda: halves(signal))
    assert settled.gain_db == pytest.approx(plan.gain_db + 3.0)
    assert "too quiet" in settled.warnings[-1]


def test_settling_reads_nothing_where_the_limiter_rests() -> None:
    def unread() -> Iterator[np.ndarray]:
        raise AssertionError("read for nothing")

    for signal, name in ((speechlike(), "ebu"), (np.zeros((1, RATE)), "podcast")):
        meter = measured(signal)
        plan = plan_gain(meter, target(name))
        assert settle_gain(plan, target(name), meter, unread) is plan


def test_silence_has_no_loudness_but_a_plan() -> None:
    meter = measured(np.zeros((1, RATE)))
    assert meter.integrated_lufs() == -math.inf
    assert math.isfinite(plan_gain(meter, target("podcast")).gain_db)
