"""Help pages with examples, that leave no blanks at the ends of their lines."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

from typer.core import TyperCommand, TyperGroup

EXAMPLES = {
    "analyze": (
        "speakup analyze talk.wav --plot talk.png",
        "speakup analyze masters/ --check podcast --json",
    ),
    "report": (
        "speakup report talk.wav talk_enhanced.wav -o page.html",
        "speakup report talk.wav book.wav -o page.html --loudness acx --start 60",
    ),
    "evaluate": (
        "speakup evaluate pairs/ --limit 10",
        "speakup evaluate pairs/ --system other=their_outputs/ --words",
    ),
    "doctor": ("speakup doctor", "speakup doctor --versions --json"),
    "bench": ("speakup bench --seconds 120", "speakup bench talk.wav --threads 1 --json"),
    "train": ("speakup train --list", "speakup train denoise-16k --data DATA"),
    "export": (
        "speakup export runs/denoise-16k/checkpoint.pt my-denoiser",
        "speakup export checkpoint.pt my-denoiser --language en --language fi",
    ),
}
"""What stands below a command's options."""


class Command(TyperCommand):
    """A command whose help ends in examples, and is trimmed unless on a terminal."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; on a terminal in colour, as typer does."""
        with _trimmed():
            super().format_help(ctx, formatter)
            examples = EXAMPLES.get(self.name or "", ())
            if examples:
                print(" Examples:\n")
                print("\n".join(f"   {line}" for line in examples) + "\n")

    def get_help_option(self, ctx: Any) -> Any:
        """Give the option --help, which takes no value to be named."""
        return _without_value(super().get_help_option(ctx))


class Group(TyperGroup):
    """A group of commands, whose help is trimmed likewise."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; on a terminal in colour, as typer does."""
        with _trimmed():
            super().format_help(ctx, formatter)

    def get_help_option(self, ctx: Any) -> Any:
        """Give the option --help, which takes no value to be named."""
        return _without_value(super().get_help_option(ctx))


def _without_value(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


class _Written(io.StringIO):
    """Keeps what is written, in the name of the stream it is meant for."""

    encoding: str = "utf-8"


@contextlib.contextmanager
def _trimmed() -> Any:
    """Trim the lines that are written to stdout within the block, unless to a terminal."""
    out = sys.stdout
    if out is None or out.isatty():
        yield
        return
    written = _Written()
    written.encoding = out.encoding
    with contextlib.redirect_stdout(written):
        yield
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    print("\n".join(lines).strip("\n"))
