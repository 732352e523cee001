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
    loudness: Annotated[
        str,
        typer.Option(
            metavar="NAME|LUFS",
            help="What it is to be delivered to: podcast, spotify, youtube, ebu, aes, acx, a "
            "loudness, or off",
        ),
    ] = "podcast",
    start: Annotated[
        float, typer.Option(metavar="S", min=0.0, help="Where what is heard and seen begins")
    ] = 0.0,
    length: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.1, max=120.0, help="How much of it; at most 120 seconds"),
    ] = None,
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

    write_report(
        before,
        after,
        output,
        target=loudness,
        start=start,
        length=length,
        overwrite=overwrite,
    )
    typer.echo(str(output))
    return 0
