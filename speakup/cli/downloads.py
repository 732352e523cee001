"""How far downloads are: a bar for each file on a terminal, and elsewhere nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from speakup.cli.terminal import Terminal, printable
from speakup.config import Config
from speakup.result import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from speakup.models.cards import ModelCard
    from speakup.models.hub.client import FileProgress


@contextlib.contextmanager
def show_downloads(terminal: Terminal) -> Iterator[FileProgress]:
    """Give what is to be told how far each file is, until the end of the block."""
    with terminal.bars() as live:
        yield _Bars(live).tell


def prepare_models(config: Config, terminal: Terminal) -> None:
    """Fetch what a configuration needs, and say what names of the Hub have come to.

    Raises:
        ModelError: a model cannot be had.
        ConfigError: the device is not there.
    """
    from speakup.models.catalogue import choose_models, fetch_models, foresee_models

    chosen = choose_models(config)
    missing = not all(card.cached for card in foresee_models(config))
    with show_downloads(terminal) if missing else contextlib.nullcontext() as tell:
        cards = fetch_models(
            chosen.names,
            offline=config.offline,
            accept_license=config.accept_license,
            progress=tell,
        )
    elsewhere = {card.name: card for card in cards if card.source in ("hub", "package")}
    if chosen.denoisers and config.takes_the_best:
        origins = [origin(elsewhere.pop(name)) for name in chosen.denoisers if name in elsewhere]
        name = "+".join(chosen.denoisers)
        said = "; ".join(["the best on this machine", *origins])
        terminal.say("denoise with ", (name, "bold"), f": {said}")
    for card in elsewhere.values():
        terminal.say(f"{card.task} with ", (card.name, "bold"), f": {origin(card)}")


def origin(card: ModelCard) -> str:
    """Say what a name has come to: repository or package, revision and licence."""
    if card.source != "hub":
        return f"{card.package or card.source}, {card.revision} ({card.licence})"
    return f"hf://{card.repository}@{card.revision} ({card.licence})"


class _Bars:
    def __init__(self, live: Progress) -> None:
        self._live = live
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, int]] = {}

    def tell(self, name: str, done: int, total: int | None) -> None:
        if name not in self._tasks:
            text = printable(name.rpartition("/")[2])
            self._tasks[name] = self._live.add_task(text, total=total, speed="", left="")
            self._began[name] = time.monotonic(), done
        began, had = self._began[name]
        elapsed = time.monotonic() - began
        speed = left = ""
        if elapsed > 0.5 and done > had:
            pace = (done - had) / elapsed
            speed = f"{pace / 1e6:.1f} MB/s"
            left = "" if total is None else f"{duration((total - done) / pace)} left"
        task = self._tasks[name]
        self._live.update(task, completed=done, total=total, speed=speed, left=left)
        if total is not None and done >= total:
            self._live.remove_task(self._tasks.pop(name))
