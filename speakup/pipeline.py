"""The product in one place: hum and noise go, the top is restored, voices are levelled.

Every door leads to the same path. A first pass surveys the recording, because the stages must
know its loudness and its bandwidth; a second one sends its blocks through the stages, each fed
at the rate it declares. `process` joins what `stream` yields; `run` is that path between a file
that is read and one that is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import numbers
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from speakup.blocks import HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS, Block, Float32, prepared
from speakup.config import BEST_IS_WIDER_THAN_HZ, Config
from speakup.errors import ConfigError, InputError, ModelError, OutputError
from speakup.files import as_name, output_error, unchanged
from speakup.measure.delivery import level_strength, resolve_target
from speakup.measure.downmix import DownmixMeter
from speakup.measure.loudness import LoudnessMeter
from speakup.measure.survey import Survey, survey
from speakup.media import recording
from speakup.media.tracks import PlannedTrack, check_output_room, open_writer, plan_tracks
from speakup.media.writer import Writer
from speakup.models.catalogue import LoadedModel, choose_models, load_model
from speakup.networks.compute import Compute
from speakup.networks.contract import Denoiser, StatefulDenoiser, Upsampler
from speakup.result import Result
from speakup.spool import Spool, check_room
from speakup.stages.base import Stage
from speakup.stages.declip import Declip
from speakup.stages.denoise import DENOISER_RATE, denoise, wet_part
from speakup.stages.flow import (
    KeepOne,
    Link,
    Progress,
    Repeat,
    Resampler,
    TimedStage,
    ahead,
    flow,
    resampled_length,
    told,
)
from speakup.stages.hum import Dehum
from speakup.stages.level import Level
from speakup.stages.loudness import Loudness
from speakup.stages.series import Series
from speakup.stages.upsample import upsample

StageMaker = Callable[[Survey], Stage | None]
"""Makes a stage for a recording, or None where the recording does not need it."""

PLAIN_CUTOFF_HZ = 8_000.0
"""Where the plain 16 kHz chain synthesises from, whatever the source holds above."""

DENOISED_HZ = 7_800.0
"""Up to where a denoiser has heard and restored the voice, whatever noise hid of it."""

FULL_BANDWIDTH_HZ = 16_000.0
"""A source that reaches this far lacks nothing that a voice has."""

_BLOCK = 65_536


class Pipeline:
    """Restore recordings by one configuration; models are loaded once, on first use.

    Args:
        config: What to do; the defaults make a podcast master.
        stages: Makers of the stages, each called with the recording's survey; None builds those
            the configuration asks for. Any object that meets `speakup.stages.base.Stage` will do.

    Raises:
        ConfigError: the configuration contradicts itself or this machine.
    """

    def __init__(
        self, config: Config | None = None, *, stages: Sequence[StageMaker] | None = None
    ) -> None:
        self.config = config = config or Config()
        self._target = resolve_target(config.loudness, config.true_peak)
        self._compute = Compute(config.device, config.precision, batch_size=config.batch_size)
        self._makers = stages
        self._models: dict[str, LoadedModel] = {}
        self._loading = threading.Lock()

    def process(self, waveform: ArrayLike, sample_rate: int) -> Block:
        """Restore a whole recording in memory.

        Args:
            waveform: (C, T) or (T,), full scale at 1; not changed.
            sample_rate: Its rate in Hz.

        Returns:
            (C, T') float32 at the output rate, T' = round(T * output rate / sample_rate).

        Raises:
            SpeakupError: a setting cannot be used or a model cannot be had.
        """
        samples, rate = _checked(waveform), _checked_rate(sample_rate)
        blocks = [samples[:, i : i + _BLOCK] for i in range(0, samples.shape[1], _BLOCK)]
        channels = 1 if self._mono else len(samples)
        found, weights = self._survey(lambda: blocks, rate, channels)
        # Stages may change what they are given; the caller's samples stay as they are.
        copies = (block.copy() for block in prepared(blocks, mono=self._mono, weights=weights))
        chain = self.chain(found, self.output_rate(sample_rate))
        return np.concatenate([np.zeros((channels, 0), np.float32), *flow(copies, chain)], axis=1)

    def stream(self, blocks: Iterable[ArrayLike], sample_rate: int) -> Iterator[Block]:
        """Restore blocks (C, T) as they come, and yield blocks at the output rate.

        The survey and the loudness each need the whole recording, so the blocks are spooled to
        disk and nothing comes out before the last one has gone in. Memory does not grow.

        Raises:
            SpeakupError: as `process`, while blocks are asked for.
        """
        rate = _checked_rate(sample_rate)
        source = map(_checked, blocks)
        first = next(source, None)
        if first is None:
            return
        with Spool(len(first)) as spool:
            passes = itertools.chain([_spooled(first, source, spool)], iter(spool.read, None))
            channels = 1 if self._mono else len(first)
            found, weights = self._survey(lambda: next(passes), rate, channels)
            chain = self.chain(found, self.output_rate(sample_rate))
            yield from flow(prepared(spool.read(), mono=self._mono, weights=weights), chain)

    def run(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        when_whole: Callable[[os.stat_result], None] | None = None,
    ) -> Result:
        """Restore a file into another.

        Args:
            source: Any audio or video file that can be decoded.
            target: The file to write; its extension decides the format unless the configuration
                does. It appears only when it is whole.
            overwrite: Replace a target that exists; else it is kept and reported as skipped, and
                what appears in its place during the work is an error.
            progress: Called as (what is done, seconds done, seconds in all or None), by any thread.
            when_whole: Called with the output's size and times when it is whole and about to
                appear; what this raises keeps it from appearing.

        Raises:
            InputError: the source cannot be read, or changed meanwhile.
            OutputError: the target cannot be written.
            ModelError: a model cannot be had.
            ConfigError: the settings do not fit the recording or the target's format.
        """
        started = time.perf_counter()
        source, target = Path(as_name(source)), Path(as_name(target))
        settle = unchanged(source, when_whole)
        notes: list[str] = []
        tracks = plan_tracks(source, target, self.config, notes)
        if _is_there(target, source) and not overwrite:
            why = "it exists; `overwrite` replaces it"
            return Result(str(source), str(target), "skipped", warnings=(why,))
        tell = progress or (lambda doing, done, total: None)
        done: list[_Done] = []
        # Opened first: what cannot be written is known before the work is done.
        with open_writer(source, target, tracks, settle, overwrite=overwrite) as writer:
            for track in tracks:
                if done:
                    writer.next_track()
                done.append(self._run_track(source, target, track, writer, tell))
        notes += writer.warnings
        if writer.clipped_samples:
            notes.append(f"{writer.clipped_samples} samples beyond full scale were cut down")
        return _result(source, target, done, notes, time.perf_counter() - started)

    def _run_track(
        self, source: Path, target: Path, track: PlannedTrack, writer: Writer, tell: Progress
    ) -> _Done:
        notes: list[str] = []
        rate, rate_out = track.info.sample_rate, track.output_format.sample_rate
        spools = 1 if level_strength(self.config, self._target) == 0.0 else 2
        check_room(track.info.sure_seconds, rate_out, track.channels, spools=spools)
        check_output_room(target, track, track.info.sure_seconds)
        speakers = track.info.speakers if track.channels == track.info.channels else ()
        meter = LoudnessMeter(rate_out, track.channels, speakers)

        def decoded() -> Iterator[Block]:
            blocks = recording.read_blocks(source, track=track.number, warnings=notes)
            with contextlib.closing(ahead(blocks)) as heard:
                yield from told(heard, rate, track.info.seconds, "survey", tell)

        found, weights = self._survey(decoded, rate, track.channels, speakers)
        if found.samples == 0:
            raise InputError("holds no audio samples", source)
        check_room(seconds := found.samples / rate, rate_out, track.channels, spools=spools)
        check_output_room(target, track, seconds)
        chain = self.chain(found, rate_out)
        blocks = recording.read_blocks(source, track=track.number)
        blocks = prepared(blocks, mono=self._mono, weights=weights)
        restored = flow(told(blocks, rate, seconds, "enhance", tell), chain)
        with contextlib.closing(restored):
            for block in told(restored, rate_out, seconds, "write", tell):
                meter.push(block)
                writer.write(block)
        return _Done(found, chain, meter, list(dict.fromkeys(notes)))

    def _survey(
        self,
        blocks: Callable[[], Iterable[Block]],
        sample_rate: int,
        channels: int,
        speakers: Sequence[str] = (),
    ) -> tuple[Survey, Float32 | None]:
        """Survey what goes into the chain; give the weights of the mix, too, if not the mean.

        Whether the channels cancel each other in the mean is known when all has been heard. If so,
        it is heard once more, mixed otherwise.
        """
        if not self._mono:
            return survey(prepared(blocks(), mono=False), sample_rate, channels, speakers), None
        meter = DownmixMeter(sample_rate)
        found = survey(prepared(meter.watched(blocks()), mono=True), sample_rate, channels)
        mix = meter.mix()
        if mix is None:
            return found, None
        mixed = prepared(blocks(), mono=True, weights=mix.weights)
        found = survey(mixed, sample_rate, channels)
        return dataclasses.replace(found, warnings=(mix.warning, *found.warnings)), mix.weights

    @property
    def _mono(self) -> bool:
        return self.config.channels == "mono"

    def output_rate(self, sample_rate: int) -> int:
        """Give the rate in Hz of what comes out for a source of this rate."""
        wanted = self.config.sample_rate
        return sample_rate if wanted == "keep" else int(wanted)

    def stage_makers(self) -> list[StageMaker]:
        """List the stages this pipeline runs, as makers called with each recording's survey."""
        if self._makers is not None:
            return list(self._makers)
        makers: list[StageMaker] = []
        denoises = self.config.denoise and self.config.strength > 0.0
        if denoises:
            makers.append(_make_declip)
        if self.config.hum:
            makers.append(_make_dehum)
        if denoises:
            makers.append(self._make_denoise)
        if self.config.upsample != "off":
            makers.append(self._make_upsample)
        return makers

    def chain(self, found: Survey, output_rate: int) -> list[Link]:
        """Give a recording's links: the stages, and resamplers where neighbours' rates differ.

        Args:
            found: Its survey.
            output_rate: Hz of what comes out.
        """
        rate, channels = found.sample_rate, found.distinct_channels
        chain: list[Link] = [] if channels == found.channels else [KeepOne()]
        make_room = False
        for maker in self.stage_makers():
            if found.bandwidth_hz is None:
                break  # Nothing but silence: there is nothing to restore.
            stage = maker(found)
            if stage is None:
                continue
            if stage.input_rate not in (None, rate):
                chain.append(Resampler(rate, int(stage.input_rate or rate), channels))
            chain.append(TimedStage(stage))
            make_room = make_room or stage.exceeds_full_scale
            rate = stage.output_rate or stage.input_rate or rate
        wanted = resampled_length(found.samples, found.sample_rate, output_rate)
        chain.append(Resampler(rate, output_rate, channels, samples=wanted))
        if channels != found.channels:
            chain.append(Repeat(found.channels))
        strength = level_strength(self.config, self._target)
        if self._makers is None and found.bandwidth_hz is not None and strength > 0.0:
            chain.append(TimedStage(Level(output_rate, found.channels, strength=strength)))
        last = Loudness(
            output_rate,
            found.channels,
            self._target,
            make_room=make_room,
            speakers=found.speakers,
        )
        chain.append(TimedStage(last))
        return chain

    def _make_denoise(self, found: Survey) -> Stage:
        chosen = choose_models(self.config)
        reaches_hz = found.bandwidth_hz or math.inf
        wide = found.hidden or reaches_hz > BEST_IS_WIDER_THAN_HZ
        models = [
            self._model(name, "denoise") for name in (chosen.denoisers if wide else chosen.narrow)
        ]
        alone = len(models) == 1
        stages = [
            denoise(
                cast("Denoiser | StatefulDenoiser", model.network),
                model.card.name,
                model.revision,
                channels=found.distinct_channels,
                lufs=found.lufs,
                strength=self.config.strength if alone else 1.0,
                max_attenuation_db=self.config.max_attenuation if alone else None,
                compute=self._compute,
            )
            for model in models
        ]
        if alone:
            return stages[0]
        wet = wet_part(self.config.strength, self.config.max_attenuation)
        return Series(stages, channels=found.distinct_channels, wet=wet)

    def _make_upsample(self, found: Survey) -> Stage | None:
        cutoff_hz, ceiling_hz = found.bandwidth_hz or PLAIN_CUTOFF_HZ, found.ceiling_hz
        if self.config.upsample == "always":
            cutoff_hz, ceiling_hz = min(cutoff_hz, PLAIN_CUTOFF_HZ), math.inf
        elif cutoff_hz >= FULL_BANDWIDTH_HZ:
            return None
        elif found.hidden:
            # Where the voice ends is not known: the denoiser has restored what it could.
            if not self.config.denoise:
                return None
            cutoff_hz = max(cutoff_hz, DENOISED_HZ)
        model = self._model(choose_models(self.config).upsampler or "", "upsample")
        return upsample(
            cast(Upsampler, model.network),
            model.card.name,
            model.revision,
            channels=found.distinct_channels,
            lufs=found.lufs,
            cutoff_hz=cutoff_hz,
            ceiling_hz=ceiling_hz,
            compute=self._compute,
        )

    def _model(self, name: str, task: str) -> LoadedModel:
        config = self.config
        with self._loading:  # once for all recordings, whose chunks share the network's batches
            if name not in self._models:
                self._models[name] = load_model(
                    name, offline=config.offline, accept_license=config.accept_license
                )
            model = self._models[name]
        wanted = DENOISER_RATE
        if isinstance(model.network, StatefulDenoiser):
            wanted = model.network.sample_rate
        if task == model.card.task == "upsample":
            wanted = cast(Upsampler, model.network).output_rate
        if (model.card.task, model.card.sample_rate) != (task, wanted):
            raise ModelError(
                f"is made to {model.card.task} at {model.card.sample_rate} Hz, "
                f"not to {task} at {wanted}",
                name,
                "Choose another model for this stage",
            )
        return model


def enhance(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    config: Config | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Restore one file with the default chain.

    Args:
        source: Any audio or video file that can be decoded.
        target: The file to write; None writes `<name>_enhanced.wav` beside the source, or for
            a video `<name>_enhanced` with its own extension.
        config: What to do; None makes a podcast master.
        device: "auto", "cpu", "cuda[:N]" or "mps"; what the configuration says comes first.
        overwrite: Replace a target that exists; else it is kept and reported as skipped.
        progress: Called as (what is being done, seconds done, seconds in all or None).

    Raises:
        SpeakupError: as `Pipeline.run`.
    """
    config = config or Config()
    if config.device == "auto":
        config = dataclasses.replace(config, device=device)
    if target is None:
        extension = f".{config.format}" if config.format else recording.kept_extension(source)
        target = Path(source).with_name(f"{Path(source).stem}_enhanced{extension or '.wav'}")
    return Pipeline(config).run(source, target, overwrite=overwrite, progress=progress)


def _make_declip(found: Survey) -> Stage | None:
    ceilings = found.ceilings[: found.distinct_channels]
    return Declip(found.sample_rate, ceilings) if found.clipped else None


def _make_dehum(found: Survey) -> Stage | None:
    hums = found.hums[: found.distinct_channels]
    return Dehum(found.sample_rate, hums) if found.hums_anywhere else None


def _checked(waveform: ArrayLike) -> Block:
    """Give (C, T) or (T,) as float32 (C, T).

    Raises:
        ConfigError: it is neither, or of whole numbers, whose full scale is not 1.
    """
    samples = np.atleast_2d(np.asarray(waveform))
    if samples.ndim != 2 or not 1 <= len(samples) <= MOST_CHANNELS:
        raise ConfigError(f"the waveform has the shape {samples.shape}", None, "Give (C, T)")
    if not np.issubdtype(samples.dtype, np.floating):
        raise ConfigError(
            f"the waveform is of {samples.dtype}", None, "Give floats with full scale at 1"
        )
    return np.asarray(samples, np.float32)


def _checked_rate(sample_rate: Any) -> int:
    whole = isinstance(sample_rate, numbers.Integral)
    if not whole or not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise ConfigError(
            f"the waveform's rate is {sample_rate!r}",
            None,
            f"Give a whole number of Hz, {LOWEST_RATE} to {HIGHEST_RATE}",
        )
    return int(sample_rate)


def _is_there(target: Path, source: Path) -> bool:
    """Tell whether a target exists.

    Raises:
        OutputError: it cannot be told, it is a folder, or it is the source itself.
    """
    try:
        if target.is_dir():
            raise OutputError("is a folder", target, "Name a file in it")
        if not target.exists():
            return False
        if target.samefile(source):
            raise OutputError("is the input itself", target, "Give the output another name")
    except OSError as error:
        raise output_error(error, target) from error
    return True


@dataclasses.dataclass(frozen=True)
class _Done:
    """What became of one track."""

    found: Survey
    chain: Sequence[Link]
    meter: LoudnessMeter
    notes: list[str]

    def warnings(self) -> list[str]:
        timed = [link for link in self.chain if isinstance(link, TimedStage)]
        ours = [warning for link in timed for warning in link.warnings]
        return [*self.notes, *self.found.warnings, *ours]


def _result(
    source: Path, target: Path, done: Sequence[_Done], notes: list[str], elapsed: float
) -> Result:
    """Give the figures of the first track, and the warnings of all."""
    found, chain, meter = done[0].found, done[0].chain, done[0].meter
    named = [
        f"audio track {number}: {warning}" if len(done) > 1 else warning
        for number, one in enumerate(done, 1)
        for warning in one.warnings()
    ]
    timed = [link for link in chain if isinstance(link, TimedStage)]
    seconds = found.samples / found.sample_rate
    return Result(
        input=str(source),
        output=str(target),
        status="ok",
        seconds=seconds,
        elapsed=elapsed,
        speed=seconds / elapsed,
        channels=found.channels,
        sample_rate_in=found.sample_rate,
        sample_rate_out=meter.sample_rate,
        bandwidth_hz=found.bandwidth_hz,
        lufs_in=found.lufs,
        lufs_out=meter.integrated_lufs(),
        true_peak_dbtp=meter.true_peak_dbtp(),
        gain_db=sum(link.stage.gain_db for link in timed),
        stages=tuple(link.report() for link in timed),
        warnings=(*named, *notes),
    )


def _spooled(first: Block, rest: Iterable[Block], spool: Spool) -> Iterator[Block]:
    for block in itertools.chain([first], rest):
        spool.write(block)
        yield block
