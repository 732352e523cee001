"""Where models lie: what a name stands for, found once for all that is done with a model.

A name is that of a bundled model, of one that others have published on the Hub or in a package, a
folder's, or the address of a repository, hf://org/repo[@revision].
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speakup.errors import MissingFile, ModelError
from speakup.models import deepfilter, published
from speakup.models.cards import (
    CARD_FILE,
    CONFIG_FILE,
    MOST_CONFIG_BYTES,
    UNREADABLE,
    WEIGHTS_FILE,
    ModelCard,
    forbids_commerce,
    licence_of,
    missing_file,
    read_card,
    read_config,
)
from speakup.models.hub import cache
from speakup.models.hub.client import MOST_BYTES, FileProgress, RemoteFile, is_offline
from speakup.models.hub.faults import fetch_command, quoted

if TYPE_CHECKING:
    from torch import Tensor

_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>.+))?", re.DOTALL)
_REVISION_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
_LONGEST_REVISION = 200
_MOST_BYTES = {CONFIG_FILE: MOST_CONFIG_BYTES, CARD_FILE: 4 << 20}


@dataclass(frozen=True)
class Fetching:
    """How a model is fetched.

    Attributes:
        offline: Make no network request.
        accept_license: Also take what must not be used commercially.
        refresh: Ask the Hub anew what a branch or tag stands for.
        words: What `speakup models fetch` is to be given to mend things; "" for the name.
        progress: Told how far each file is.
    """

    offline: bool = False
    accept_license: bool = False
    refresh: bool = False
    words: str = ""
    progress: FileProgress | None = None


def locate(name: str) -> Place:
    """Find where a model lies, or would; nothing is requested.

    Raises:
        ModelError: an address on the Hub that is none.
    """
    if (card := published.MODELS.get(name)) is not None:
        return _Packaged(card) if card.package else _Pinned(card)
    return _Repository(name) if name.startswith("hf://") else _Folder(name)


def bundled_folder() -> Path:
    """Give the folder of the bundled models: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def bundled_models() -> list[ModelCard]:
    """List the models that come with the program, by name."""
    folders = sorted(path.parent for path in bundled_folder().glob(f"*/{CONFIG_FILE}"))
    return [read_card(folder, source="bundled") for folder in folders]


class Place(ABC):
    """Where a model lies."""

    name: str
    """What the user calls the model."""

    origin = ""
    """What is to be fetched from where, as far as that is known."""

    @abstractmethod
    def card(self) -> ModelCard:
        """Say what is known of the model; nothing is requested.

        Raises:
            ModelError: there is no such model, or what is there is none.
        """

    @abstractmethod
    def fetch(self, how: Fetching) -> ModelCard:
        """Have the model's files on this machine, checked; they are fetched if they are not there.

        Raises:
            ModelError: they cannot be had or are not what they must be, or the licence must be
                accepted first.
        """

    @abstractmethod
    def remove(self) -> int:
        """Take the model out of the cache, and give the bytes that are free now.

        Raises:
            ModelError: it is not there, or cannot be removed.
        """

    def read_weights(self, card: ModelCard) -> dict[str, Tensor]:
        """Read the weights of the model, which is here.

        Raises:
            ModelError: they cannot be read, or are more than tensors.
        """
        from speakup.models.weights import read_weights

        return read_weights(card.folder / card.file, entry=card.entry)

    def fault(self) -> str | None:
        """Check the model's files again, and say what is wrong with them; nothing is requested.

        Raises:
            ModelError: there is no such model, or it is not here.
        """
        card = self.card()
        if not card.cached:
            raise ModelError("is not on this machine", self.name, fetch_command(quoted(self.name)))
        try:
            self.read_weights(card)
        except ModelError as error:
            return error.problem
        return None


class _Folder(Place):
    """A bundled model, or a folder of the user's; the bundled one where both have the name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def card(self) -> ModelCard:
        bundled, given = bundled_folder() / self.name, Path(os.path.expanduser(self.name))
        if not os.path.isabs(given) and not missing_file(bundled):
            return read_card(bundled, source="bundled")
        if not missing_file(given):
            return read_card(given)
        if os.path.isdir(given):
            raise ModelError(f"the folder has no {missing_file(given)}", self.name)
        ours = ", ".join(card.name for card in bundled_models()) or "none"
        others = published.MODELS.values()
        raise ModelError(
            "no such model",
            self.name,
            f"Bundled: {ours}; by a package: {', '.join(c.name for c in others if c.package)}; on "
            f"the Hub: {', '.join(c.name for c in others if not c.package)}; or give a folder or "
            "hf://org/repo",
        )

    def fetch(self, how: Fetching) -> ModelCard:
        return self.card()

    def remove(self) -> int:
        bundled = self.card().source == "bundled"
        whose = "comes with the program" if bundled else "is a folder of yours"
        raise ModelError(f"{whose}, and is not removed", self.name)


class _OnHub(Place):
    """A model whose files lie in a repository of the Hub, and in its cache."""

    files: tuple[RemoteFile, ...]

    def remove(self) -> int:
        there = [file for file in self.files if cache.find_file(file) is not None]
        if not there:
            raise ModelError("is not in the cache", self.name)
        return sum(cache.remove_file(file) for file in there)

    def fault(self) -> str | None:
        for file in self.files:
            path = cache.find_file(file)
            if path is not None and (fault := cache.fault_of(path, file)) is not None:
                return f"{file.name} {fault}"
        return super().fault()

    def _get(self, file: RemoteFile, how: Fetching) -> Path:
        return cache.fetch_file(
            file,
            model=self.name,
            words=how.words or quoted(self.name),
            offline=how.offline,
            refresh=how.refresh,
            progress=how.progress,
        )


class _Pinned(_OnHub):
    """A model that others have published: one file, of which all is known beforehand."""

    def __init__(self, card: ModelCard) -> None:
        self.name, self._card = card.name, card
        file = RemoteFile(card.repository, card.revision, card.file, card.bytes, card.sha256)
        self.files, self.origin = (file,), file.origin

    def card(self) -> ModelCard:
        (file,) = self.files
        cached = cache.find_file(file) is not None
        return dataclasses.replace(self._card, folder=cache.snapshot_folder(file), cached=cached)

    def fetch(self, how: Fetching) -> ModelCard:
        _check_licence(self._card.licence, self.name, how)
        self._get(self.files[0], how)
        return self.card()


class _Repository(_OnHub):
    """A model in our own layout, in whoever's repository."""

    def __init__(self, address: str) -> None:
        match = _HUB.fullmatch(address)
        if (
            match is None
            or not _is_repository(match["repo"])
            or not _is_revision(match["revision"])
        ):
            how = "Write hf://org/repo or hf://org/repo@rev"
            raise ModelError("is no Hub address", address, how)
        self.name, self._repository = address, match["repo"]
        self._revision = match["revision"] or "main"
        self.files = tuple(map(self._file, (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)))

    def _file(self, name: str, commit: str = "") -> RemoteFile:
        most = _MOST_BYTES.get(name, MOST_BYTES)
        return RemoteFile(self._repository, commit or self._revision, name, most=most)

    def card(self) -> ModelCard:
        """Say what is known: until the files are here, no more than the address."""
        config, weights = map(cache.find_file, self.files[:2])
        if config is None or weights is None:
            return ModelCard(
                self.name,
                repository=self._repository,
                folder=cache.cache_folder(),
                source="hub",
                cached=False,
            )
        return self._read(config.parent)

    def _read(self, folder: Path) -> ModelCard:
        """Read the card; its name is the address, whatever the file calls the model."""
        card = read_card(folder, source="hub")
        name = f"hf://{self._repository}"
        return dataclasses.replace(card, name=name, repository=self._repository)

    def fetch(self, how: Fetching) -> ModelCard:
        folder, values = self._fetch_config(how)
        # Everything else comes from the commit of the first file, also if the branch moves on.
        weights, card = (self._file(name, folder.name) for name in (WEIGHTS_FILE, CARD_FILE))
        if cache.find_file(weights) is None:
            # Where the Hub states licences. A repository may do without.
            with contextlib.suppress(MissingFile):
                self._get(card, how)
        _check_licence(licence_of(folder, values), self.name, how)
        self._get(weights, how)
        return self._read(folder)

    def _fetch_config(self, how: Fetching) -> tuple[Path, dict[str, Any]]:
        """Give the folder and the config; one that cannot be read does not stay in the cache."""
        offline = how.offline or is_offline()
        for last in (False, True):
            folder = self._get(self.files[0], how).parent
            try:
                return folder, read_config(folder)
            except ModelError as error:
                if not offline:
                    cache.remove_file(self.files[0])
                if last or offline:
                    remedy = fetch_command(how.words or quoted(self.name))
                    raise ModelError(error.problem, self.name, remedy) from error
        raise AssertionError


class _Packaged(Place):
    """A model whose weights come with an optional package."""

    def __init__(self, card: ModelCard) -> None:
        self.name, self._card = card.name, card

    def card(self) -> ModelCard:
        path = deepfilter.find_archive(self._card.file)
        if path is None or path.stat().st_size != self._card.bytes:
            return self._card  # Another version's, or half of one, is nothing that can be used.
        folder = path.parents[len(Path(self._card.file).parts) - 1]
        return dataclasses.replace(self._card, folder=folder, cached=True)

    def fetch(self, how: Fetching) -> ModelCard:
        _check_licence(self._card.licence, self.name, how)
        self._archive()
        return self.card()

    def _archive(self) -> Path:
        """Give the checked file; errors say how the package is installed."""
        return deepfilter.check_archive(
            deepfilter.find_archive(self._card.file),
            model=self.name,
            size=self._card.bytes,
            sha256=self._card.sha256,
        )

    def read_weights(self, card: ModelCard) -> dict[str, Tensor]:
        kept = cache.cache_folder().parent / "speakup"
        return deepfilter.read_weights(self._archive(), cache=kept)

    def fault(self) -> str | None:
        self._archive()
        return super().fault()

    def remove(self) -> int:
        package = self._card.package
        problem = f"comes with the package {package}, and is removed with it"
        raise ModelError(problem, self.name, f"pip uninstall {package}")


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


def _check_licence(licence: str, name: str, how: Fetching) -> None:
    if how.accept_license or not forbids_commerce(licence):
        return
    problem = f"its licence, {licence}, forbids commercial use"
    if licence == UNREADABLE:
        problem = "what it says of its licence cannot be read, and may forbid commercial use"
    command = fetch_command(how.words or quoted(name))
    raise ModelError(problem, name, f"If that suits you, fetch it with `accept_license`: {command}")
