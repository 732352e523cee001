"""`speakup enhance`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speakup.cli import progress
from speakup.cli.downloads import prepare_models
from speakup.cli.interrupt import interruptible
from speakup.cli.options import (
    ALL_FIELDS,
    FILES,
    WORDS,
    AsJson,
    Jobs,
    NoProgress,
    Quiet,
    Verbose,
    takes_config,
)
from speakup.cli.pipe import PIPE, check_pipe, run_pipe
from speakup.cli.terminal import LOADING, Terminal, times
from speakup.config import Config
from speakup.errors import ConfigError, SpeakupError
from speakup.result import Result, duration

if TYPE_CHECKING:
    from speakup.folders.plan import Job, Plan
    from speakup.folders.run import Summary


Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A file's name, a folder, or - for standard output; by default talk_enhanced.wav "
        "beside talk.wav, and <folder>_enhanced beside a folder",
        rich_help_panel=FILES,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", metavar="", help="Replace outputs that exist", rich_help_panel=FILES
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Heed what the journal in the folder of outputs says is finished",
        rich_help_panel=FILES,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Of a folder, only files that match", rich_help_panel=FILES),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Of a folder, no files that match", rich_help_panel=FILES),
]
NoRecursive = Annotated[
    bool,
    typer.Option(
        "--no-recursive", metavar="", help="Leave a folder's folders out", rich_help_panel=FILES
    ),
]
ReportPage = Annotated[
    Path | None,
    typer.Option(
        metavar="PAGE",
        help="Also write an HTML page, to hear and see before and after",
        rich_help_panel=FILES,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", metavar="", help="Only say what would be done", rich_help_panel=WORDS
    ),
]


Raw = Annotated[
    str | None,
    typer.Option(
        metavar="RATE:CHANNELS:FORMAT",
        help="Read - as samples without a header, such as 16000:1:s16le",
        rich_help_panel=FILES,
    ),
]


_NOTHING_WRITTEN = "interrupted: nothing is written. The same command starts anew"
_FEW = 5
"""Up to so many files are named one by one."""


@takes_config(*ALL_FIELDS)
def enhance(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Recordings, folders of them, glob patterns, or -."),
    ],
    output: Output = None,
    raw: Raw = None,
    overwrite: Overwrite = False,
    resume: Resume = True,
    include: Include = None,
    exclude: Exclude = None,
    no_recursive: NoRecursive = False,
    jobs: Jobs = None,
    report: ReportPage = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    *,
    config: Config,
) -> int:
    """Clean recordings, restore their top and set their loudness."""
    from speakup.files import check_free
    from speakup.folders.plan import Job, Plan, plan_jobs

    terminal = Terminal(quiet=quiet, verbose=verbose, progress=not no_progress)
    if raw is not None or PIPE in (*inputs, output):
        unfit = {"dry_run": dry_run, "report": report, "include": include, "exclude": exclude}
        ends = check_pipe(inputs, output, raw, as_json=as_json, **unfit)
        job = Job(Path(ends[0]), Path(ends[1]))
        one = _Run(Plan((job,)), config, terminal, as_json=as_json)
        prepare_models(config, terminal)
        return one.through_pipe(*ends, raw=raw, overwrite=overwrite)
    plan = plan_jobs(
        inputs,
        output,
        format=config.format,
        include=include or (),
        exclude=exclude or (),
        recursive=not no_recursive,
    )
    _tell_left_out(plan, terminal)
    if report is not None and len(plan.jobs) != 1:
        raise ConfigError(
            f"a report shows one recording, not {len(plan.jobs)}",
            report,
            "Make one of each with speakup report",
        )
    if report is not None:
        check_free(report, overwrite=overwrite)
    if dry_run:
        from speakup.cli.dryrun import tell_plan

        return tell_plan(
            plan.jobs, config, terminal, overwrite=overwrite, resume=resume, as_json=as_json
        )

    prepare_models(config, terminal)
    run = _Run(plan, config, terminal, as_json=as_json)
    summary = run(overwrite=overwrite, resume=resume, jobs=jobs)
    if report is not None and summary.failed == 0:
        from speakup.judge.page import write_report

        job = plan.jobs[0]
        assert job.target is not None
        write_report(
            job.source,
            job.target,
            report,
            target=config.loudness,
            result=summary.results[0],
            config=config,
            overwrite=overwrite,
        )
        terminal.say(f"report: {report}")
    return exit_code(summary.results)


def _tell_left_out(plan: Plan, terminal: Terminal) -> None:
    """Say what is left out and why: each file, or of many alike how many."""
    reasons: dict[str, list[Path]] = {}
    for path, reason in plan.left_out:
        reasons.setdefault(reason, []).append(path)
    for reason, paths in reasons.items():
        if len(paths) > _FEW and not terminal.verbose:
            terminal.say(f"{len(paths)} files are left out, each because {reason}")
            continue
        for path in paths:
            terminal.say(f"{path}: left out, because {reason}")


def exit_code(results: tuple[Result, ...]) -> int:
    """Give 0 when nothing failed, a single input's own code, and 1 where some of several did."""
    failed = [result for result in results if result.status == "failed"]
    if not failed or len(results) > 1:
        return int(bool(failed))
    error = failed[0].error
    return error.exit_code if isinstance(error, SpeakupError) else SpeakupError.exit_code


class _Run:
    """One call of `speakup enhance`: the batch, and what is said of it."""

    def __init__(self, plan: Plan, config: Config, terminal: Terminal, *, as_json: bool) -> None:
        self._jobs, self._config = plan.jobs, config
        self._terminal, self._as_json = terminal, as_json
        self._done = 0

    def __call__(self, *, overwrite: bool, resume: bool, jobs: int | None) -> Summary:
        from speakup.cli.compute import set_up
        from speakup.folders.run import run_jobs

        def say_interrupted() -> None:
            if len(self._jobs) == 1 and not self._done:
                self._terminal.error(_NOTHING_WRITTEN)
                return
            done = f"{self._done} of {len(self._jobs)} files are done"
            how = self._how_to_go_on(overwrite, resume)
            self._terminal.error(f"interrupted: {done}. {how} goes on where it stopped")

        waiting: list[Job] = []
        try:
            with (
                interruptible(say_interrupted),
                progress.track(self._terminal, self._sizes()) as tracker,
            ):

                def get_ready() -> int:
                    with self._terminal.busy(LOADING):
                        return set_up(self._config, files=len(self._jobs), jobs=jobs)

                def tell(job: Job, doing: str, done: float, total: float | None) -> None:
                    if doing == "wait" and job not in waiting:
                        waiting.append(job)
                        self._terminal.say(f"{job.source}: another run is at work on it; waiting")
                    tracker.tell(str(job.source), doing, done, total)

                def end(result: Result) -> None:
                    tracker.end(result.input, result.seconds, worked=result.status == "ok")
                    self._tell(result)

                summary = run_jobs(
                    self._jobs,
                    self._config,
                    overwrite=overwrite,
                    resume=resume,
                    workers=get_ready,
                    on_result=end,
                    progress=tell,
                )
        except KeyboardInterrupt as interruption:
            raise typer.Exit(getattr(interruption, "exit_code", 130)) from None
        self._tell_summary(summary)
        return summary

    def through_pipe(self, source: str, target: str, *, raw: str | None, overwrite: bool) -> int:
        """Enhance the one recording, whose input or output is a pipe; give the exit code."""

        def say_interrupted() -> None:
            self._terminal.error(_NOTHING_WRITTEN)

        ends = (source, target, self._config, self._terminal, self._tell)
        try:
            with interruptible(say_interrupted):
                return run_pipe(*ends, raw=raw, overwrite=overwrite)
        except SpeakupError as error:
            if not self._as_json:
                raise
            self._tell(Result(source, target, "failed", error=error))
            return error.exit_code
        except KeyboardInterrupt as interruption:
            raise typer.Exit(getattr(interruption, "exit_code", 130)) from None

    def _sizes(self) -> dict[str, float]:
        """Give the recordings' sizes in bytes: what is known of their lengths beforehand."""
        sizes = {}
        for job in self._jobs:
            sizes[str(job.source)] = 0.0
            with contextlib.suppress(OSError):
                sizes[str(job.source)] = float(job.source.stat().st_size)
        return sizes

    def _how_to_go_on(self, overwrite: bool, resume: bool) -> str:
        journals = resume and all(job.folder is not None for job in self._jobs)
        if not overwrite or journals:
            return "The same command"
        return "The same command, without --overwrite,"

    def _tell(self, result: Result) -> None:
        self._done += 1
        if self._as_json:
            self._terminal.event(result.to_json())
        if result.error is not None:
            self._terminal.error(result.error, result.input)
            return
        counter = f"[{self._done}/{len(self._jobs)}] " if len(self._jobs) > 1 else ""
        self._terminal.say((counter, "dim"), (result.input, "bold"), "  ", *described(result))
        for warning in result.warnings if result.status == "ok" else ():
            self._terminal.warn(warning)
        if self._terminal.verbose:
            for line in _stages(result):
                self._terminal.say(line)
        if not self._as_json and result.output != PIPE:
            self._terminal.result(result.output or "")

    def _tell_summary(self, summary: Summary) -> None:
        if self._as_json:
            self._terminal.event(summary.to_json())
        if len(summary.results) < 2:
            return
        counts = {"done": summary.ok, "skipped": summary.skipped, "failed": summary.failed}
        words = [f"{count} {name}" for name, count in counts.items() if count]
        failed = [result.error for result in summary.results if result.error is not None]
        for error in failed if len(failed) < len(summary.results) else ():
            self._terminal.say(("failed: ", "red"), str(error))
        pace = f": {duration(summary.seconds)} in {duration(summary.elapsed)}"
        speed = f" ({times(summary.speed)})"
        self._terminal.say(", ".join(words), pace + speed if summary.seconds else "")


def described(result: Result) -> list[str | tuple[str, str]]:
    """Say in a line what was found and done; text, or pairs of text and style."""
    if result.status == "skipped":
        return [(f"skipped: {result.output}: {'; '.join(result.warnings)}", "yellow")]
    facts = []
    if result.bandwidth_hz is None:
        facts.append("silence")
    else:
        restored = any(stage.name == "upsample" for stage in result.stages)
        what = "top restored from" if restored else "bandwidth"
        facts.append(f"{what} {result.bandwidth_hz / 1000:.1f} kHz")
    if result.lufs_in is not None and result.lufs_out is not None:
        change = f"{_level(result.lufs_in)} → {_level(result.lufs_out)} LUFS"
        facts.append(f"{change} ({result.gain_db:+.1f} dB)")
    if result.true_peak_dbtp is not None:
        facts.append(f"peak {_level(result.true_peak_dbtp)} dBTP")
    pace = (times(result.speed), "green")
    return [duration(result.seconds), " at ", pace, " · ", " · ".join(facts)]


def _level(value: float) -> str:
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")


def _stages(result: Result) -> list[str]:
    lines = []
    for stage in result.stages:
        model = f"  {stage.model} {stage.revision}" if stage.model else ""
        speed = times(result.seconds / stage.seconds) if stage.seconds else ""
        lines.append(f"  {stage.name:<14}{stage.seconds:8.2f} s {speed:>7}{model}")
    return lines
