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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace a page that exists")
    ] = False,
) -> int:
    """Write one HTML page with players, spectrograms and measurements of before and after."""
    from speakup.files import check_free
    from speakup.media import recording

    for path in (before, after):
        recording.probe(path)  # What cannot be read is said before the meters load.
    check_free(output, overwrite=overwrite)
    from speakup.judge.page import write_report

    write_report(before, after, output, overwrite=overwrite)
    typer.echo(str(output))
    return 0
