"""What `speakup enhance` would do, from the files' heads and the models' cards alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from speakup import errors
from speakup.cli.terminal import Terminal, as_options
from speakup.config import Config
from speakup.errors import InputError, SpeakupError
from speakup.files import temporary_folder
from speakup.folders.plan import Job
from speakup.folders.run import Accounts
from speakup.measure.delivery import level_strength, resolve_target
from speakup.media.tracks import plan_tracks
from speakup.models.cards import ModelCard
from speakup.models.catalogue import foresee_models
from speakup.result import duration, error_json, size
from speakup.spool import spooled_bytes


def tell_plan(
    jobs: Sequence[Job],
    config: Config,
    terminal: Terminal,
    *,
    overwrite: bool,
    resume: bool,
    as_json: bool,
) -> int:
    """Say what would be done with each job; give the exit code that doing it would begin with.

    Raises:
        ModelError: there is no model of a name.
        ConfigError: a setting cannot be used.
    """
    target = resolve_target(config.loudness, config.true_peak)
    cards = foresee_models(config)
    accounts = Accounts(jobs, config, overwrite=overwrite, resume=resume, cards=cards)
    steps = [_step(card, config) for card in accounts.cards]
    if (strength := level_strength(config, target)) > 0.0:
        steps.append("level" if strength == 1.0 else f"level by {strength:g}")
    if target is not None:
        steps.append(f"loudness {target.name}, at most {target.true_peak_dbtp:g} dBTP")
    if not as_json:
        terminal.say("stages: ", "; ".join(steps) or "none")
        for card in cards:
            if not card.cached:
                terminal.say("to be fetched first: ", _missing(card))

    failures: list[SpeakupError] = []
    needs: list[tuple[int, int]] = []
    for job in jobs:
        event: dict[str, Any] = {"event": "plan", "input": str(job.source), "error": None}
        try:
            event |= _planned(job, config, accounts)
        except SpeakupError as error:
            failures.append(error)
            event |= {"output": None, "status": "fail"}
            event["error"] = error_json(error)
            terminal.error(error)
        event["models"] = [_model(card) for card in accounts.cards]
        event["loudness"] = None if target is None else target.name
        if as_json:
            terminal.event(event)
        elif event["status"] != "fail":
            terminal.result(as_options(_line(event)))
            for warning in event["warnings"]:
                terminal.warn(warning)
        if event["status"] in ("write", "overwrite") and event["output_bytes"] is not None:
            needs.append((event["output_bytes"], event["temporary_bytes"]))
    if needs and not as_json:
        terminal.say(_disk_need(needs))
    if not failures:
        return 0
    return failures[0].exit_code if len(jobs) == 1 else errors.SpeakupError.exit_code


def _planned(job: Job, config: Config, accounts: Accounts) -> dict[str, Any]:
    if job.error is not None or job.target is None:
        raise job.error or InputError("there is nothing to do", job.source)
    notes: list[str] = []
    tracks = plan_tracks(job.source, job.target, config, notes)
    main, info, coded = tracks[0], tracks[0].info, tracks[0].output_format
    status = "overwrite" if os.path.exists(job.target) else "write"
    reason = accounts.reason_to_skip(job)
    lengths = [(track, track.info.seconds) for track in tracks]
    known = [(track, seconds) for track, seconds in lengths if seconds is not None]
    # Of a video all tracks are done, and the first ones wait on the disk for the last.
    output = sum(track.coded_bytes(seconds) for track, seconds in known)
    levels = level_strength(config, resolve_target(config.loudness, config.true_peak)) > 0.0
    spools = 2 if levels else 1
    temporary = sum(
        spooled_bytes(seconds, track.output_format.sample_rate, track.channels, spools=spools)
        for track, seconds in known
    )
    return {
        "output": str(job.target),
        "status": status if reason is None else "skip",
        "reason": reason,
        "seconds": info.seconds,
        "channels": main.channels,
        "sample_rate_in": info.sample_rate,
        "sample_rate_out": coded.sample_rate,
        "format": coded.name,
        "bit_depth": coded.bit_depth,
        "bitrate": coded.bitrate,
        "output_bytes": output if len(known) == len(tracks) else None,
        "temporary_bytes": temporary if len(known) == len(tracks) else None,
        "warnings": notes,
    }


def _disk_need(needs: Sequence[tuple[int, int]]) -> str:
    """Say how much room the outputs take, and the temporary folder needs."""
    outputs = sum(output for output, _ in needs)
    largest = max(temporary for _, temporary in needs)
    each = " for each recording worked on at a time" if len(needs) > 1 else ""
    return (
        f"disk: up to {size(outputs)} for the sound of the outputs, and while it works up to "
        f"{size(largest)} in {temporary_folder()}{each}"
    )


def _step(card: ModelCard, config: Config) -> str:
    if card.task == "upsample" and config.upsample == "auto":
        return f"{card.task} with {card.name}, where the top is missing"
    return f"{card.task} with {card.name}"


def _model(card: ModelCard) -> dict[str, Any]:
    return {
        "task": card.task,
        "name": card.name,
        "revision": card.revision,
        "cached": card.cached,
    }


def _missing(card: ModelCard) -> str:
    if not card.repository:
        return card.name
    size = f"{card.bytes / 1e6:.1f} MB"
    return f"{card.name} ({size}) from hf://{card.repository}@{card.revision}"


def _line(event: dict[str, Any]) -> str:
    depth = f"{event['bit_depth']} bit" if event["bit_depth"] else f"{event['bitrate']} kbit/s"
    length = "" if event["seconds"] is None else f"{duration(event['seconds'])}, "
    channels = {1: "mono", 2: "stereo"}.get(event["channels"], f"{event['channels']} channels")
    notes = {"write": "", "overwrite": ", replaced", "skip": f", skipped: {event['reason']}"}
    return (
        f"{event['input']} -> {event['output']} ({length}{event['format']} {depth}, "
        f"{event['sample_rate_out'] / 1000:g} kHz, {channels}{notes[event['status']]})"
    )
