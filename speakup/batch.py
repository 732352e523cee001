"""Several recordings, one after the other or at once; a bad one never stops the rest."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speakup import audio
from speakup.catalogue import resolve
from speakup.config import Config
from speakup.errors import InputError, OutputError
from speakup.jobs import Job, plan_jobs, planned_models
from speakup.pipeline import Pipeline
from speakup.result import Result

BatchProgress = Callable[[Job, str, float, float | None], None]
"""Called as (job, what is being done, seconds done, seconds in all or None), from any thread."""


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
        overwrite: Replace outputs that exist; else they are kept and reported as skipped.
        jobs: Recordings worked on at a time.
        on_result: Called with every result as it comes, in this thread.
        progress: Called with each step of each recording, from any thread.

    Raises:
        ConfigError: a setting cannot be used, or two recordings would share an output.
        ModelError: a model that is needed cannot be had.
    """
    config = config or Config()
    target = None if output_dir is None else os.path.join(output_dir, "")
    plan = plan_jobs(inputs, target, format=config.format)
    return run_jobs(
        plan.jobs,
        config,
        overwrite=overwrite,
        workers=jobs,
        on_result=on_result,
        progress=progress,
    )


def run_jobs(
    jobs: Sequence[Job],
    config: Config,
    *,
    overwrite: bool = False,
    workers: int = 1,
    on_result: Callable[[Result], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
    progress: BatchProgress | None = None,
) -> Summary:
    """Do the jobs of a plan; each gives a result, whatever goes wrong in it.

    An interruption ends the jobs at their next step, so that their temporary files go.

    Args:
        jobs: What `plan_jobs` gives.
        config: What to do.
        overwrite: Replace outputs that exist; else they are kept and reported as skipped.
        workers: Jobs at a time; one works in this thread.
        on_result: Called with every result as it comes, in this thread.
        on_error: Called with the exception behind every failed result, from any thread.
        progress: Called with each step of each job, from any thread.

    Raises:
        ConfigError: a setting cannot be used on this machine.
        ModelError: a model that is needed cannot be had.
    """
    started = time.perf_counter()
    pipeline = Pipeline(config)
    for name in planned_models(config):
        resolve(name, offline=config.offline)
    stopping = threading.Event()

    def run(job: Job) -> Result:
        def tell(doing: str, done: float, total: float | None) -> None:
            if stopping.is_set():
                raise _Stopped
            if progress is not None:
                progress(job, doing, done, total)

        return _run(job, pipeline, overwrite=overwrite, tell=tell, on_error=on_error)

    results: dict[int, Result] = {}
    for index, result in _completed(jobs, run, workers, stopping):
        results[index] = result
        if on_result is not None:
            on_result(result)
    ordered = tuple(results[index] for index in sorted(results))
    return _summary(ordered, time.perf_counter() - started)


class _Stopped(BaseException):
    """Unwinds a worker after an interruption; nothing catches it but the pool."""


def _completed(
    jobs: Sequence[Job], run: Callable[[Job], Result], workers: int, stopping: threading.Event
) -> Iterator[tuple[int, Result]]:
    if workers <= 1 or len(jobs) <= 1:
        for index, job in enumerate(jobs):
            yield index, run(job)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="speakup") as pool:
        futures = {pool.submit(run, job): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            stopping.set()
            pool.shutdown(cancel_futures=True)


def _run(
    job: Job,
    pipeline: Pipeline,
    *,
    overwrite: bool,
    tell: Callable[[str, float, float | None], None],
    on_error: Callable[[Exception], None] | None,
) -> Result:
    started = time.perf_counter()
    try:
        if job.error is not None or job.target is None:
            raise job.error or InputError("there is nothing to do", job.source)
        tell("open", 0.0, None)
        if job.makes_folder and not job.target.parent.is_dir():
            audio.probe(job.source)  # No folder for what cannot be read.
            _make_folder(job.target.parent)
        return pipeline.run(job.source, job.target, overwrite=overwrite, progress=tell)
    except Exception as error:
        if on_error is not None:
            on_error(error)
        return Result(
            input=str(job.source),
            output=None,
            status="failed",
            elapsed=time.perf_counter() - started,
            error={"type": type(error).__name__, "message": str(error)},
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder cannot be made: {error.strerror}", folder, "Write elsewhere"
        ) from error


def _summary(results: tuple[Result, ...], elapsed: float) -> Summary:
    counts = {status: 0 for status in ("ok", "skipped", "failed")}
    for result in results:
        counts[result.status] += 1
    seconds = sum(result.seconds for result in results)
    speed = seconds / elapsed if elapsed > 0.0 else 0.0
    return Summary(
        results, counts["ok"], counts["skipped"], counts["failed"], seconds, elapsed, speed
    )
