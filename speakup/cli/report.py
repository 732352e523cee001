"""`speakup report`: a page to hear and see before against after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    before: Annotated[Path, typer.Argument(help="The recording as it was.")],
    after: Annotated[Path, typer.Argument(help="The enhanced recording.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PAGE", help="The HTML page to write")
    ],
) -> int:
    """Write one HTML page with players, spectrograms and measurements of before and after."""
    from speakup.media import recording

    for path in (before, after):
        recording.probe(path)  # What cannot be read is said before the meters load.
    from speakup.judge.page import write_report

    write_report(before, after, output)
    typer.echo(str(output))
    return 0
