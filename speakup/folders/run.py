"""Several recordings, one after the other or at once; a bad one never stops the rest."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speakup.config import Config
from speakup.errors import InputError, OutputError, SpeakupError
from speakup.files import Claim, clear, get_mark, output_error, set_mark
from speakup.folders.journal import Journal, settings_digest
from speakup.folders.plan import Job, plan_jobs, planned_models
from speakup.measure.delivery import resolve_target
from speakup.media import recording
from speakup.media.tracks import plan_tracks
from speakup.models.cards import ModelCard
from speakup.models.catalogue import fetch_models
from speakup.result import Result, duration

if TYPE_CHECKING:
    from speakup.pipeline import Pipeline

BatchProgress = Callable[[Job, str, float, float | None], None]
"""Called as (job, what is being done, seconds done, seconds in all or None), from any thread."""

_WAIT_SECONDS = 0.2
"""How often to look whether another run is through with a recording."""

_WAIT_AT_MOST = 600.0
"""How long, in seconds, to wait for that in the end, when nothing else is left to do."""

_REPLACES = "`overwrite` replaces it"


@dataclass(frozen=True)
class Summary:
    """What became of a batch; `seconds` is the audio done, `elapsed` the time it took."""

    results: tuple[Result, ...]
    ok: int
    skipped: int
    failed: int
    seconds: float
    elapsed: float
    speed: float

    def to_json(self) -> dict[str, Any]:
        """Give a JSON-ready dict without the single results."""
        return {
            "event": "summary",
            "ok": self.ok,
            "skipped": self.skipped,
            "failed": self.failed,
            "seconds": round(self.seconds, 3),
            "elapsed": round(self.elapsed, 3),
            "speed": round(self.speed, 3),
        }


def run_batch(
    inputs: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str] | None = None,
    *,
    config: Config | None = None,
    overwrite: bool = False,
    resume: bool = True,
    jobs: int = 1,
    on_result: Callable[[Result], None] | None = None,
    progress: BatchProgress | None = None,
) -> Summary:
    """Enhance several recordings; one that fails does not stop the rest.

    Args:
        inputs: Files, folders and glob patterns.
        output_dir: Folder of the outputs; None puts `talk_enhanced.wav` beside `talk.wav`, and
            a folder's outputs into `<folder>_enhanced` with the same tree.
        config: What to do; None makes podcast masters.
        overwrite: Replace outputs that exist; else they are kept and reported as skipped, but for
            those that an earlier run made from an input or with settings that have changed.
        resume: Heed the journal in the folder of outputs: what is finished is not done again.
        jobs: Recordings worked on at a time.
        on_result: Called with every result as it comes, in this thread.
        progress: Called with each step of each recording, from any thread.

    Raises:
        ConfigError: a setting or a journal cannot be used, or two recordings would share an output.
        ModelError: a model that is needed cannot be had.
    """
    config = config or Config()
    target = None if output_dir is None else os.path.join(output_dir, "")
    plan = plan_jobs(inputs, target, format=config.format)
    return run_jobs(
        plan.jobs,
        config,
        overwrite=overwrite,
        resume=resume,
        workers=jobs,
        on_result=on_result,
        progress=progress,
    )


def run_jobs(
    jobs: Sequence[Job],
    config: Config,
    *,
    overwrite: bool = False,
    resume: bool = True,
    workers: int | Callable[[], int] = 1,
    on_result: Callable[[Result], None] | None = None,
    progress: BatchProgress | None = None,
) -> Summary:
    """Do the jobs of a plan; each gives a result, whatever goes wrong in it.

    An interruption ends the jobs at their next step, so that their temporary files go. What
    another run is at work on comes last, when that run is through with it.

    Args:
        jobs: What `plan_jobs` gives.
        config: What to do.
        overwrite: Replace outputs that exist; else they are kept and reported as skipped, but for
            those that an earlier run made from an input or with settings that have changed.
        resume: Heed the journals in the folders of outputs: what is finished is not done again.
        workers: Jobs at a time, of which one works in this thread; or what tells how many, called
            once, before the networks' libraries load, unless there is nothing to do.
        on_result: Called with every result as it comes, in this thread.
        progress: Called with each step of each job, from any thread.

    Raises:
        ConfigError: a setting cannot be used on this machine, or a journal cannot be: it is of a
            newer version, or no journal.
        ModelError: a model that is needed cannot be had.
    """
    started = time.perf_counter()
    resolve_target(config.loudness, config.true_peak)  # A wrong one is wrong for all jobs.
    accounts = Accounts(jobs, config, overwrite=overwrite, resume=resume)
    works = any(_wants_work(job, accounts) for job in jobs)
    at_once = workers if isinstance(workers, int) else workers() if works else 1
    pipeline = _Later(config)
    if works:
        pipeline.get()  # What cannot be used on this machine ends the run, not each job.
    for folder in {place for job in jobs for place in _written_to(job)}:
        clear(folder)
    stopping = threading.Event()

    def run(job: Job, wait: bool) -> Result | None:
        def tell(doing: str, done: float, total: float | None) -> None:
            if stopping.is_set():
                raise _Stopped
            if progress is not None:
                progress(job, doing, done, total)

        return _run(job, pipeline, accounts, wait=wait, tell=tell)

    results: dict[int, Result] = {}
    with contextlib.closing(_completed(jobs, run, at_once, stopping)) as completed:
        for index, result in completed:
            results[index] = result
            if on_result is not None:
                on_result(result)
    accounts.end()
    ordered = tuple(results[index] for index in sorted(results))
    return _summary(ordered, time.perf_counter() - started)


class Accounts:
    """What is done already and what is to be done: the journals of all folders of outputs.

    Args:
        jobs: What `plan_jobs` gives.
        config: What to do.
        overwrite: Replace outputs that exist.
        resume: Heed what the journals tell.
        cards: The models that the configuration needs; None fetches those that are missing.

    Raises:
        ConfigError: a journal is of a newer version, or is none.
        ModelError: a model that is needed cannot be had.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        config: Config,
        *,
        overwrite: bool = False,
        resume: bool = True,
        cards: Sequence[ModelCard] | None = None,
    ) -> None:
        self.config, self.overwrite, self._resume = config, overwrite, resume
        if cards is None:
            cards = fetch_models(
                planned_models(config),
                offline=config.offline,
                accept_license=config.accept_license,
            )
        self.cards = tuple(cards)
        models = [f"{card.name} {card.revision}" for card in self.cards]
        self._digest = digest = settings_digest(config, models)
        self._journals = {
            folder: Journal(folder, digest, models, overwrite=overwrite)
            for folder in {job.folder for job in jobs if job.folder is not None}
        }

    def journal(self, job: Job) -> Journal | None:
        """Give the journal of the folder that a job's output goes into."""
        return None if job.folder is None else self._journals[job.folder]

    def reason_to_skip(self, job: Job) -> str | None:
        """Say why a job's output is kept as it is; None where it is to be written."""
        if job.target is None or not _is_other_file(job.target, job.source):
            return None
        journal = self.journal(job)
        if journal is None or not self._resume:
            return None if self.overwrite else f"it exists{self._made_of(job)}; {_REPLACES}"
        standing = journal.standing(job.source, job.target)
        if standing == "finished" and (not self.overwrite or journal.goes_on(job.target)):
            return "it is finished"
        if self.overwrite or standing in ("missing", "outdated"):
            return None
        if standing == "altered":
            return "it has been changed since it was made"
        return "it exists, and was not made from this recording"

    def mark(self, job: Job) -> str:
        """Give what is noted at an output without a journal: its settings and its recording."""
        state = job.source.stat()
        return f"{self._digest} {state.st_size} {state.st_mtime_ns}"

    def _made_of(self, job: Job) -> str:
        """Say of an output without a journal, as far as it is known, that it is of another make."""
        with contextlib.suppress(OSError):
            if job.target is not None and (found := get_mark(job.target)) is not None:
                settings, _, recording = found.partition(" ")
                if settings != self._digest:
                    return ", made with other settings"
                if recording != self.mark(job).partition(" ")[2]:
                    return ", made from what the recording was before"
        return ""

    def end(self) -> None:
        """Note that the run is through."""
        for journal in self._journals.values():
            # All that matters is written, and what went wrong was said of each recording.
            with contextlib.suppress(OSError, SpeakupError):
                journal.end()


class _Later:
    """The pipeline, made when the first recording wants it: torch alone takes seconds to load."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._made: Pipeline | None = None
        self._making = threading.Lock()

    def get(self) -> Pipeline:
        """Give the one pipeline of all jobs.

        Raises:
            ConfigError: a setting cannot be used on this machine.
        """
        with self._making:
            if self._made is None:
                from speakup.pipeline import Pipeline

                self._made = Pipeline(self._config)
            return self._made


def _wants_work(job: Job, accounts: Accounts) -> bool:
    """Tell whether a job comes to more than a skip or a refusal, as far as heads of files tell."""
    if job.error is not None or job.target is None:
        return False
    try:
        plan_tracks(job.source, job.target, accounts.config, [])
    except SpeakupError:
        return False
    return accounts.reason_to_skip(job) is None


class _Stopped(BaseException):
    """Unwinds a worker after an interruption; nothing catches it but the pool."""


def _completed(
    jobs: Sequence[Job],
    run: Callable[[Job, bool], Result | None],
    workers: int,
    stopping: threading.Event,
) -> Generator[tuple[int, Result]]:
    """Yield the results as they come, with the jobs' numbers; what others are at, last."""
    busy = []
    if workers <= 1 or len(jobs) <= 1:
        for index, job in enumerate(jobs):
            if (result := run(job, False)) is not None:
                yield index, result
            else:
                busy.append(index)
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="speakup") as pool:
            futures = {pool.submit(run, job, False): index for index, job in enumerate(jobs)}
            try:
                for future in as_completed(futures):
                    if (result := future.result()) is not None:
                        yield futures[future], result
                    else:
                        busy.append(futures[future])
            finally:
                stopping.set()
                pool.shutdown(cancel_futures=True)
        stopping.clear()
    for index in sorted(busy):
        if (result := run(jobs[index], True)) is not None:
            yield index, result


def _run(
    job: Job,
    pipeline: _Later,
    accounts: Accounts,
    *,
    wait: bool,
    tell: Callable[[str, float, float | None], None],
) -> Result | None:
    """Do a job; None where another run is at work on it, and this one is not to wait."""
    started = time.perf_counter()
    try:
        if job.error is not None or job.target is None:
            raise job.error or InputError("there is nothing to do", job.source)
        tell("open", 0.0, None)
        return _done(job, job.target, pipeline, accounts, wait=wait, tell=tell)
    except Exception as error:
        _let_go(error)
        return Result(
            input=str(job.source),
            output=None,
            status="failed",
            elapsed=time.perf_counter() - started,
            error=error,
        )


def _let_go(error: BaseException | None) -> None:
    """Free what an error's frames hold, blocks and all; where it came up can still be told."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _written_to(job: Job) -> list[Path]:
    """List the folders in which a job keeps files while it is worked on."""
    return [path for path in (job.target and job.target.parent, job.folder) if path is not None]


def _done(
    job: Job,
    target: Path,
    pipeline: _Later,
    accounts: Accounts,
    *,
    wait: bool,
    tell: Callable[[str, float, float | None], None],
) -> Result | None:
    """Do a job that can be done, as `_run` does."""
    journal = accounts.journal(job)
    if journal is None:
        plan_tracks(job.source, target, accounts.config, [])  # What cannot be had is said at once.
        if (reason := accounts.reason_to_skip(job)) is not None:
            return _skipped(job, reason)
        mark = accounts.mark(job)
        run = pipeline.get().run
        result = run(job.source, target, overwrite=accounts.overwrite, progress=tell)
        if result.status == "ok":
            set_mark(target, mark)
        return result
    if (reason := accounts.reason_to_skip(job)) is not None:
        return _skipped(job, reason)
    if not os.path.isdir(target.parent):
        recording.probe(job.source)  # No folder for what cannot be read.
        _make_folder(target.parent)
    until = time.monotonic() + _WAIT_AT_MOST
    while (claim := _claimed(journal, target)) is None:
        if not wait:
            return None
        if time.monotonic() > until:
            problem = f"another run has been at work on it for {duration(_WAIT_AT_MOST)}"
            raise OutputError(problem, target, "Try again when that is through, or end it")
        tell("wait", 0.0, None)
        time.sleep(_WAIT_SECONDS)
    with claim:
        journal.refresh()
        there = _state(target)
        if (reason := accounts.reason_to_skip(job)) is not None:
            return _skipped(job, reason)
        try:
            state = job.source.stat()
        except OSError:
            recording.probe(job.source)  # It says why.
            raise

        def record(written: os.stat_result) -> None:
            if there is not None and not accounts.overwrite and _state(target) != there:
                problem = "has been changed while it was made anew"
                raise OutputError(problem, target, "Set `overwrite` to replace it")
            journal.record(job.source, state, target, written)

        plan_tracks(job.source, target, accounts.config, [])
        return pipeline.get().run(
            job.source,
            target,
            overwrite=accounts.overwrite or there is not None,
            progress=tell,
            when_whole=record,
        )


def _state(path: Path) -> tuple[int, int, int] | None:
    """Tell what has a name; None where nothing has."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


def _is_other_file(target: Path, source: Path) -> bool:
    """Tell whether there is a file that can be kept: no folder, and not the recording itself."""
    try:
        return target.exists() and not target.is_dir() and not target.samefile(source)
    except OSError:
        return False


def _claimed(journal: Journal, target: Path) -> Claim | None:
    try:
        return journal.claim(target)
    except OSError as error:
        raise output_error(error, target) from error


def _skipped(job: Job, reason: str) -> Result:
    return Result(str(job.source), str(job.target), "skipped", warnings=(reason,))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, folder) from error


def _summary(results: tuple[Result, ...], elapsed: float) -> Summary:
    counts = {status: 0 for status in ("ok", "skipped", "failed")}
    for result in results:
        counts[result.status] += 1
    seconds = sum(result.seconds for result in results)
    speed = seconds / elapsed if elapsed > 0.0 else 0.0
    return Summary(
        results, counts["ok"], counts["skipped"], counts["failed"], seconds, elapsed, speed
    )
