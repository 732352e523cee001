"""From a model's name to a built network: which models there are, chosen, fetched and loaded.

Where they lie is in `places`, what is known of one in `cards`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speakup.config import PRESETS, Config
from speakup.errors import ModelError
from speakup.models import published, ranking
from speakup.models.cards import ModelCard
from speakup.models.hub.client import FileProgress
from speakup.models.hub.faults import quoted
from speakup.models.places import Fetching, bundled_models, locate

if TYPE_CHECKING:
    from torch import nn

_BUNDLED = PRESETS["fast"][""]


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, its card, and the revision of its weights."""

    network: nn.Module
    card: ModelCard
    revision: str


def list_models() -> list[ModelCard]:
    """List the models that have a name: the bundled ones, then those that others published."""
    return [*bundled_models(), *map(find_card, published.MODELS)]


@dataclass(frozen=True)
class ChosenModels:
    """The models that a configuration may need.

    Attributes:
        denoisers: Those that a recording goes through one after the other.
        narrow: Those that a recording of little bandwidth goes through instead.
        upsampler: What restores the top, or None.
    """

    denoisers: tuple[str, ...]
    narrow: tuple[str, ...]
    upsampler: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, once each, in the order of their stages."""
        last = () if self.upsampler is None else (self.upsampler,)
        return tuple(dict.fromkeys((*self.denoisers, *self.narrow, *last)))


def choose_models(config: Config) -> ChosenModels:
    """Name the models that a configuration may need; nothing is requested, and nothing checked."""
    denoisers: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    upsampler: str | None = None
    if config.denoise and config.strength > 0.0:
        if config.takes_the_best:
            denoisers = _in_a_row(_best_at_hand())
            narrow = (_BUNDLED["denoise"],)
        else:
            narrow = denoisers = _in_a_row(config.denoiser or _preset_model(config, "denoise"))
    if config.upsample != "off":
        upsampler = config.upsampler or _preset_model(config, "upsample")
    return ChosenModels(denoisers, narrow, upsampler)


def _preset_model(config: Config, task: str) -> str:
    """Name what the preset has for a task; without one, the bundled model."""
    kind = config.device.partition(":")[0]
    if config.depends_on_device and kind == "auto":
        from speakup.networks.compute import pick_device

        kind = pick_device(config.device).type
    return config.preset_models(kind)[task]


def _best_at_hand() -> str:
    """Name the best denoiser that can be used without a question or a network."""

    def at_hand(name: str) -> bool:
        cards = [find_card(part) for part in _in_a_row(name)]
        return all(card.cached for card in cards)

    return ranking.best_denoiser(at_hand) or _BUNDLED["denoise"]


def _in_a_row(name: str) -> tuple[str, ...]:
    """Take apart the name of several models; a folder may have a plus in its own."""
    return (name,) if os.path.exists(name) else tuple(name.split("+"))


def find_card(name: str) -> ModelCard:
    """Give the card of a model as far as it is known without a request; see its `cached`.

    Raises:
        ModelError: there is no such model, or what is there is none.
    """
    return locate(name).card()


def load_model(
    name_or_path: str,
    *,
    device: str = "cpu",
    offline: bool = False,
    accept_license: bool = False,
) -> LoadedModel:
    """Build a model's network and load its weights.

    Args:
        name_or_path: A bundled or published model's name, a folder, or hf://org/repo[@revision].
        device: A torch device.
        offline: Make no network request; the Hub's models must lie in the cache.
        accept_license: Also take what must not be used commercially.

    Raises:
        ModelError: there is no such model, its files cannot be had, or the weights do not match
            the architecture key by key.
    """
    from speakup.models.weights import build

    place = locate(name_or_path)
    card = place.fetch(Fetching(offline=offline, accept_license=accept_license))
    network = build(card, place.read_weights(card), name_or_path)
    network = network.to(device).eval().requires_grad_(False)
    return LoadedModel(network, card, card.revision)


def fetch_models(
    names: Sequence[str],
    *,
    offline: bool = False,
    accept_license: bool = False,
    progress: FileProgress | None = None,
) -> list[ModelCard]:
    """Give the cards of models whose files lie on this machine, checked; they are fetched if not.

    Errors name the whole of what is missing.

    Raises:
        ModelError: there is no such model, its files cannot be had or are not what they must be,
            or its licence must be accepted first.
    """
    places = [locate(name) for name in names]
    missing = [place for place in places if not place.card().cached]
    cards = []
    for place in places:
        wanted = [each.name for each in missing] if place in missing else [place.name]
        how = Fetching(
            offline=offline,
            accept_license=accept_license,
            words=quoted(*wanted),
            progress=progress,
        )
        try:
            cards.append(place.fetch(how))
        except ModelError as error:
            also = [each.origin for each in missing if each is not place and each.origin]
            if not also or place not in missing:
                raise
            remedy = f"{error.remedy}; and {', and '.join(also)}"
            raise type(error)(error.problem, error.subject, remedy) from error
    return cards


def foresee_models(config: Config) -> list[ModelCard]:
    """Give the cards of the models that a configuration may need, without any request.

    Of an hf:// model that is not on this machine no more is known than its address.
    """
    chosen = choose_models(config)
    found = []
    for name in chosen.names:
        card = find_card(name)
        task = card.task or ("upsample" if name == chosen.upsampler else "denoise")
        found.append(dataclasses.replace(card, task=task))
    return found
