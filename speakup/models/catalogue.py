"""From a model's name to a built network: which models there are, chosen, fetched and loaded.

Where they lie is in `places`, what is known of one in `cards`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speakup.config import Config
from speakup.errors import ModelError
from speakup.models import published
from speakup.models.cards import ModelCard
from speakup.models.hub.client import FileProgress
from speakup.models.hub.faults import quoted
from speakup.models.places import Fetching, bundled_models, locate

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, its card, and the revision of its weights."""

    network: nn.Module
    card: ModelCard
    revision: str


def list_models() -> list[ModelCard]:
    """List the models that have a name: the bundled ones, then those that others published."""
    return [*bundled_models(), *map(find_card, published.MODELS)]


def choose_models(config: Config) -> dict[str, str]:
    """Name the models that a configuration may need, by task, in the order of their stages."""
    wanted: dict[str, str | None] = {}
    if config.denoise and config.strength > 0.0:
        wanted["denoise"] = config.denoiser
    if config.upsample != "off":
        wanted["upsample"] = config.upsampler
    if None not in wanted.values():
        return {task: str(name) for task, name in wanted.items()}
    kind = config.device.partition(":")[0]
    if config.depends_on_device and kind == "auto":
        from speakup.networks.compute import pick_device

        kind = pick_device(config.device).type
    preset = config.preset_models(kind)
    return {task: name or preset[task] for task, name in wanted.items()}


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
    return [
        dataclasses.replace(card, task=card.task or task)
        for task, name in choose_models(config).items()
        for card in [find_card(name)]
    ]
