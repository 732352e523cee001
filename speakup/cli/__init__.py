"""The command line: the only part that prints. Heavy imports wait inside the commands."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings

import typer

from speakup import __version__
from speakup.cli import analyze, bench, doctor, enhance, evaluate, export, models, report, train
from speakup.cli.encoding import adapt
from speakup.cli.help import Command, Group
from speakup.cli.interrupt import interruptible
from speakup.cli.terminal import Terminal, debugging, give_up_output, say_error
from speakup.errors import ConfigError, OutputError, SpeakupError
from speakup.files import output_error

__all__ = ["app", "main"]

_UsageError: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]

app = typer.Typer(
    name="speakup",
    cls=Group,
    help="Turn a noisy, echoing, dull speech recording into a clean 44.1 kHz podcast master.",
    epilog="SPEAKUP_DEBUG=1 shows where an error came up.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models.app, name="models")
for _command in (
    enhance.enhance,
    analyze.analyze,
    report.report,
    evaluate.evaluate,
    doctor.doctor,
    bench.bench,
    train.train,
    export.export,
):
    app.command(cls=Command)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"speakup {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False,
        "-V",
        "--version",
        metavar="",
        help="Say which version this is.",
        callback=_show_version,
        is_eager=True,
    ),
) -> None:
    pass


def main() -> int:
    """Run the command in `sys.argv`; give its exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not debugging():
        warnings.simplefilter("ignore")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    adapt(sys.stdout, sys.stderr)  # a name need not be text, nor the terminal Unicode
    command = typer.main.get_command(app)
    try:
        with (
            interruptible(lambda: say_error("interrupted")),
            command.make_context("speakup", sys.argv[1:]) as context,
        ):
            code = int(command.invoke(context) or 0)
            return code or (OutputError.exit_code if Terminal.output_lost else 0)
    except typer.Exit as stop:
        return stop.exit_code
    except _UsageError as error:
        return _wrong_usage(error)
    except SpeakupError as error:
        say_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # Who reads stdout has had enough.
        give_up_output()
        return OutputError.exit_code
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            say_error(error)
            return 1
        give_up_output()
        say_error(output_error(error, "standard output"))
        return OutputError.exit_code
    except Exception as error:
        say_error(error)
        return 1


def _with_enhance(words: list[str]) -> str:
    """Give the command that was meant by one that begins with a file."""
    return shlex.join(["speakup", "enhance", *words])


def _wrong_usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":  # which has shown the help already
        return ConfigError.exit_code
    where = context.command_path if context is not None else "speakup"
    words = sys.argv[1:]
    if text.startswith("No such command") and words and os.path.exists(words[0]):
        text = f"No such command {words[0]!r}. Did you mean: {_with_enhance(words)}?"
    full_stop = "" if text.endswith((".", "?")) else "."
    say_error(f"{text}{full_stop} See {where} --help")
    return ConfigError.exit_code
