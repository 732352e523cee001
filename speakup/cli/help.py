"""Help pages that leave no blanks at the ends of their lines."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose help is trimmed where it goes to a file or a program."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; on a terminal in colour, as typer does."""
        with _trimmed():
            super().format_help(ctx, formatter)


class Group(TyperGroup):
    """A group of commands, whose help is trimmed likewise."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; on a terminal in colour, as typer does."""
        with _trimmed():
            super().format_help(ctx, formatter)


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
