"""From a model's name to a built network: card, local files, weights checked key by key.

Bundled models lie in the package; others in a folder of the user's, or in a repository on the
Hugging Face Hub, in our own layout (`cards`). What others have published is in `published`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speakup.config import PRESETS, Config
from speakup.errors import MissingFile, ModelError
from speakup.models import deepfilter, published, ranking
from speakup.models.cards import (
    CARD_FILE,
    CONFIG_FILE,
    MOST_CONFIG_BYTES,
    WEIGHTS_FILE,
    ModelCard,
    forbids_commerce,
    licence_of,
    missing_file,
    read_card,
    read_config,
)
from speakup.models.hub import cache
from speakup.models.hub.client import MOST_BYTES, FileProgress, RemoteFile
from speakup.models.hub.faults import fetch_command, quoted
from speakup.models.published import Published

if TYPE_CHECKING:
    from torch import Tensor, nn

_BUNDLED = PRESETS["fast"][""]
_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>.+))?", re.DOTALL)
_REVISION_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
_LONGEST_REVISION = 200
_MOST_BYTES = {CONFIG_FILE: MOST_CONFIG_BYTES, CARD_FILE: 4 << 20}


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, its card, and the revision of its weights."""

    network: nn.Module
    card: ModelCard
    revision: str


def list_models() -> list[ModelCard]:
    """List the models that have a name: the bundled ones, then those published on the Hub."""
    return [*bundled_models(), *(_published_card(model) for model in published.MODELS)]


def bundled_models() -> list[ModelCard]:
    """List the models that come with the program, by name."""
    folders = sorted(path.parent for path in bundled_folder().glob(f"*/{CONFIG_FILE}"))
    return [read_card(folder, source="bundled") for folder in folders]


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
        return all(card is not None and card.cached for card in cards)

    return ranking.best_denoiser(at_hand) or _BUNDLED["denoise"]


def _in_a_row(name: str) -> tuple[str, ...]:
    """Take apart the name of several models; a folder may have a plus in its own."""
    return (name,) if os.path.exists(name) else tuple(name.split("+"))


def find_card(name: str) -> ModelCard | None:
    """Give the card of a model as far as that is known without a request, else None.

    Raises:
        ModelError: there is no such model, or what is there is none.
    """
    if (model := published.find(name)) is not None:
        return _published_card(model)
    if not name.startswith("hf://"):
        return _folder_card(name)
    files = [_hub_file(name, part) for part in (CONFIG_FILE, WEIGHTS_FILE)]
    paths = [cache.find_file(file) for file in files]
    return None if paths[0] is None or paths[1] is None else _hub_card(name, paths[0].parent)


def fetch_model(
    name: str,
    *,
    offline: bool = False,
    accept_license: bool = False,
    refresh: bool = False,
    words: str | None = None,
    progress: FileProgress | None = None,
) -> ModelCard:
    """Give the card of a model whose files lie on this machine, checked; they are fetched if not.

    Args:
        name: A bundled or published model's name, a folder, or hf://org/repo[@revision].
        offline: Make no network request.
        accept_license: Also take what must not be used commercially.
        refresh: Ask the Hub anew what a branch or tag stands for.
        words: What `speakup models fetch` is to be given to mend things; by default the name.
        progress: Told how far each file is.

    Raises:
        ModelError: there is no such model, its files cannot be had or are not what they must be,
            or its licence must be accepted first.
    """
    words = words or quoted(name)
    model = published.find(name)
    if model is None and not name.startswith("hf://"):
        return _folder_card(name)

    def get(file: RemoteFile) -> Path:
        return cache.fetch_file(
            file, model=name, words=words, offline=offline, refresh=refresh, progress=progress
        )

    if model is not None:
        _check_licence(model.licence, name, words, accept_license)
        if model.package:
            _packaged_file(model)
        else:
            get(_published_file(model))
        return _published_card(model)
    folder, values = _get_config(_hub_file(name, CONFIG_FILE), get, name, words, offline)
    # Everything else comes from the commit of the first file, also if the branch moves on.
    weights = _hub_file(name, WEIGHTS_FILE, folder.name)
    if cache.find_file(weights) is None:
        # Where the Hub states licences. A repository may do without.
        with contextlib.suppress(MissingFile):
            get(_hub_file(name, CARD_FILE, folder.name))
    _check_licence(licence_of(folder, values), name, words, accept_license)
    get(weights)
    return _hub_card(name, folder)


def _get_config(
    file: RemoteFile, get: Callable[[RemoteFile], Path], name: str, words: str, offline: bool
) -> tuple[Path, dict[str, Any]]:
    """Give a repository's folder and config; one that cannot be read does not stay in the cache."""
    for last in (False, True):
        folder = get(file).parent
        try:
            return folder, read_config(folder)
        except ModelError as error:
            if not offline:
                cache.remove_file(file)
            if last or offline:
                raise ModelError(error.problem, name, fetch_command(words)) from error
    raise AssertionError


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
    from speakup.models import weights
    from speakup.networks import ARCHITECTURES

    card = fetch_model(name_or_path, offline=offline, accept_license=accept_license)
    model = published.find(name_or_path)
    subject = card.folder if model is None else name_or_path
    if card.architecture not in ARCHITECTURES:
        raise ModelError(
            f"architecture {card.architecture!r} is unknown",
            subject,
            f"This version knows {', '.join(ARCHITECTURES)}",
        )
    try:
        network = ARCHITECTURES[card.architecture](**card.hyperparameters)
    except Exception as error:  # Whatever numbers from a file may lead to.
        raise ModelError(f"the hyperparameters make no network ({error})", subject) from error
    prefix = model is not None and model.may_have_prefix
    weights.fill(network, _read_weights(card, model), subject, may_have_prefix=prefix)
    network = network.to(device).eval().requires_grad_(False)
    return LoadedModel(network, card, card.revision)


def _read_weights(card: ModelCard, model: Published | None) -> dict[str, Tensor]:
    from speakup.models import weights

    if model is not None and model.package:
        archive = _packaged_file(model)
        return deepfilter.read_weights(archive, cache=cache.cache_folder().parent / "speakup")
    entry = "" if model is None else model.entry
    return weights.read_weights(card.folder / card.file, entry=entry)


def resolve(name_or_path: str, *, offline: bool = False, accept_license: bool = False) -> Path:
    """Find a model's folder on this machine, fetching it from the Hub if that is where it is.

    Raises:
        ModelError: there is no such model, or it cannot be fetched.
    """
    return fetch_model(name_or_path, offline=offline, accept_license=accept_license).folder


def fetch_models(
    names: Sequence[str],
    *,
    offline: bool = False,
    accept_license: bool = False,
    progress: FileProgress | None = None,
) -> list[ModelCard]:
    """Give the cards of several models, as `fetch_model`; errors name the whole of what is missing.

    Raises:
        ModelError: one of them cannot be had.
    """
    missing = [name for name in names if (card := find_card(name)) is None or not card.cached]
    cards = []
    for name in names:
        try:
            card = fetch_model(
                name,
                offline=offline,
                accept_license=accept_license,
                words=quoted(*(missing if name in missing else [name])),
                progress=progress,
            )
        except ModelError as error:
            others = [model for model in published.on_hub() if model.name in missing]
            also = [_published_file(model).origin for model in others if model.name != name]
            if not also or name not in missing:
                raise
            remedy = f"{error.remedy}; and {', and '.join(also)}"
            raise type(error)(error.problem, error.subject, remedy) from error
        cards.append(card)
    return cards


def foresee_models(config: Config) -> list[ModelCard]:
    """Give the cards of the models that a configuration may need, without any request.

    Of an hf:// model that is not on this machine no more is known than its address.
    """
    found = []
    chosen = choose_models(config)
    for name in chosen.names:
        unknown = ModelCard(
            name=name,
            task="upsample" if name == chosen.upsampler else "denoise",
            architecture="",
            sample_rate=0,
            hyperparameters={},
            parameters=0,
            bytes=0,
            licence="unknown",
            description="",
            folder=cache.cache_folder() if name.startswith("hf://") else Path(),
            revision="unknown",
            source="hub",
            cached=False,
        )
        found.append(find_card(name) or unknown)
    return found


def verify_model(name: str) -> str | None:
    """Hash a model's files again; nothing is requested.

    Returns:
        What is wrong with them, or None where all are right.

    Raises:
        ModelError: there is no such model, or it is not on this machine.
    """
    model, card = published.find(name), find_card(name)
    if model is not None and model.package:
        _packaged_file(model)
    if card is None or not card.cached:
        raise ModelError("is not on this machine", name, fetch_command(quoted(name)))
    for file in _remote_files(name):
        path = cache.find_file(file)
        fault = None if path is None else cache.fault_of(path, file)
        if fault is not None:
            return f"{file.name} {fault}"
    try:
        _read_weights(card, model)
    except ModelError as error:
        return error.problem
    return None


def remove_model(name: str) -> int:
    """Take a model of the Hub out of the cache.

    Returns:
        The bytes that are free now.

    Raises:
        ModelError: it is none of the Hub's, is not there, or cannot be removed.
    """
    model, files = published.find(name), _remote_files(name)
    if model is not None and model.package:
        problem = f"comes with the package {model.package}, and is removed with it"
        raise ModelError(problem, name, f"pip uninstall {model.package}")
    if not files:
        card = _folder_card(name)
        whose = "comes with the program" if card.source == "bundled" else "is a folder of yours"
        raise ModelError(f"{whose}, and is not removed", name)
    there = [file for file in files if cache.find_file(file) is not None]
    if not there:
        raise ModelError("is not in the cache", name)
    return sum(cache.remove_file(file) for file in there)


def _remote_files(name: str) -> list[RemoteFile]:
    """List what a model of the Hub consists of; of any other model, nothing."""
    if (model := published.find(name)) is not None:
        return [] if model.package else [_published_file(model)]
    if not name.startswith("hf://"):
        return []
    return [_hub_file(name, part) for part in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)]


def bundled_folder() -> Path:
    """Give the folder of the bundled models: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def _folder_card(name: str) -> ModelCard:
    """Give the card of a bundled model or of a folder."""
    bundled, given = bundled_folder() / name, Path(os.path.expanduser(name))
    if not os.path.isabs(given) and not missing_file(bundled):
        return read_card(bundled, source="bundled")
    if not missing_file(given):
        return read_card(given)
    if os.path.isdir(given):
        raise ModelError(f"the folder has no {missing_file(given)}", name)
    ours = ", ".join(card.name for card in bundled_models()) or "none"
    others = ", ".join(model.name for model in published.on_hub())
    packaged = ", ".join(model.name for model in published.MODELS if model.package)
    raise ModelError(
        "no such model",
        name,
        f"Bundled: {ours}; by a package: {packaged}; on the Hub: {others}; or give a folder or "
        "hf://org/repo",
    )


def _published_card(model: Published) -> ModelCard:
    if model.package:
        path, folder = deepfilter.find_archive(model.file), Path()
        if path is not None and path.stat().st_size != model.bytes:
            path = None  # Another version's, or half of one: nothing that can be used.
    else:
        file = _published_file(model)
        path, folder = cache.find_file(file), cache.snapshot_folder(file)
    if path is not None:
        folder = path.parents[len(Path(model.file).parts) - 1]
    return ModelCard(
        name=model.name,
        task=model.task,
        architecture=model.architecture,
        sample_rate=model.sample_rate,
        hyperparameters=dict(model.hyperparameters),
        parameters=model.parameters,
        bytes=model.bytes,
        licence=model.licence,
        description=model.description,
        folder=folder,
        revision=model.revision,
        source="package" if model.package else "hub",
        file=model.file,
        cached=path is not None,
        repository=model.repository,
        sha256=model.sha256,
        paper=model.paper,
        package=model.package,
    )


def _packaged_file(model: Published) -> Path:
    """Give the checked file of a model that comes with a package.

    Raises:
        ModelError: it is missing, damaged or another.
    """
    return deepfilter.check_archive(
        deepfilter.find_archive(model.file),
        model=model.name,
        size=model.bytes,
        sha256=model.sha256,
    )


def _published_file(model: Published) -> RemoteFile:
    return RemoteFile(model.repository, model.revision, model.file, model.bytes, model.sha256)


def _hub_card(address: str, folder: Path) -> ModelCard:
    """Read a card of the Hub; its name is the address, whatever the file calls the model."""
    repository = _hub_file(address, CONFIG_FILE).repository
    card = read_card(folder, source="hub")
    return dataclasses.replace(card, name=f"hf://{repository}", repository=repository)


def _hub_file(address: str, name: str, commit: str | None = None) -> RemoteFile:
    match = _HUB.fullmatch(address)
    if match is None or not _is_repository(match["repo"]) or not _is_revision(match["revision"]):
        raise ModelError("is no Hub address", address, "Write hf://org/repo or hf://org/repo@rev")
    revision = commit or match["revision"] or "main"
    return RemoteFile(match["repo"], revision, name, most=_MOST_BYTES.get(name, MOST_BYTES))


def _is_repository(name: str) -> bool:
    """Tell whether the Hub may have a repository of that name, as its own library says."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.isascii()


def _is_revision(name: str | None) -> bool:
    """Tell whether a branch, tag or commit may have that name; it becomes one of a file.

    Reference: git-check-ref-format(1), less the letters that a shell or a file system minds.
    """
    if name is None:
        return True
    return len(name) <= _LONGEST_REVISION and all(
        _REVISION_PART.fullmatch(part) and ".." not in part and not part.endswith((".", ".lock"))
        for part in name.split("/")
    )


def _check_licence(licence: str, name: str, words: str, accepted: bool) -> None:
    if accepted or not forbids_commerce(licence):
        return
    raise ModelError(
        f"its licence, {licence}, forbids commercial use",
        name,
        f"If that suits you, set `accept_license`: speakup models fetch {words} --accept-license",
    )
