"""Weights files read safely, and put into a network key by key.

Safetensors holds numbers alone. A torch checkpoint is a pickle, a little program; `weights_only`
refuses all but tensors and plain containers, and we refuse what is left over.
"""

from __future__ import annotations

import contextlib
import reprlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speakup.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from speakup.models.cards import ModelCard

_SHOWN = 3
_SPARE = 100
"""Parameters that a network may have beyond twice its weights while it is built."""


def read_weights(path: Path, *, entry: str = "") -> dict[str, Tensor]:
    """Read the tensors of a weights file, by their names.

    Args:
        path: A .safetensors file; anything else is taken for a torch checkpoint.
        entry: Under which key of the checkpoint they lie; "" for the checkpoint itself.

    Raises:
        ModelError: it cannot be read, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        import safetensors.torch
        from safetensors import SafetensorError

        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"the weights cannot be read ({_line(error)})", path) from error
    return _read_checkpoint(path, entry)


def build(card: ModelCard, weights: dict[str, Tensor], subject: object) -> nn.Module:
    """Build a model's network and load its weights: every one has its place, and no place is empty.

    The network is laid out without memory first, so that nothing is taken for one that is larger
    than its weights.

    Args:
        card: Says which network it is.
        weights: Name -> values of any number format.
        subject: What an error is about.

    Raises:
        ModelError: there is no such network, or a name is missing, unknown, or of another shape.
    """
    import torch

    from speakup.networks import ARCHITECTURES, DENOISERS

    if card.architecture not in ARCHITECTURES:
        known = f"This version knows {', '.join(ARCHITECTURES)}"
        shown = reprlib.repr(card.architecture)
        raise ModelError(f"architecture {shown} is unknown", subject, known)
    task = "denoise" if card.architecture in DENOISERS else "upsample"
    if card.task != task:
        shown = reprlib.repr(card.task)
        problem = f"its architecture {card.architecture!r} is made to {task}, not to {shown}"
        raise ModelError(problem, subject)
    make = ARCHITECTURES[card.architecture]
    try:
        with torch.device("meta"), _at_most(_SPARE + 2 * len(weights)):
            outline: Any = make(**card.hyperparameters)
    except Exception as error:  # Whatever numbers from a file may lead to.
        problem = f"the hyperparameters make no network ({_line(error)})"
        raise ModelError(problem, subject) from error
    weights = _fitting(outline, weights, subject, may_have_prefix=card.may_have_prefix)
    network: Any = make(**card.hyperparameters)
    load_strict(network, weights, subject)
    return network


def load_strict(network: nn.Module, weights: dict[str, Tensor], subject: object) -> None:
    """Put weights into a network: every one has its place, and no place stays empty.

    Args:
        network: What to fill.
        weights: Name -> values of any number format.
        subject: What an error is about.

    Raises:
        ModelError: a name is missing, unknown, or its shape is another.
    """
    fitting = _fitting(network, weights, subject)
    network.load_state_dict(
        {
            key: value.float() if value.is_floating_point() else value
            for key, value in fitting.items()
        }
    )


def _fitting(
    network: nn.Module,
    weights: dict[str, Tensor],
    subject: object,
    *,
    may_have_prefix: bool = False,
) -> dict[str, Tensor]:
    """Give the weights by the network's own names.

    Raises:
        ModelError: they are not the network's.
    """
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if may_have_prefix:
        weights = _without_prefix(weights, set(wanted))
    others = [
        f"{key} {tuple(value.shape)} instead of {wanted[key]}"
        for key, value in weights.items()
        if key in wanted and tuple(value.shape) != wanted[key]
    ]
    found = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "unknown": sorted(weights.keys() - wanted.keys()),
        "of other shapes": others,
    }
    faults = "; ".join(f"{what}: {_some(names)}" for what, names in found.items() if names)
    if faults:
        raise ModelError(f"the weights do not match the architecture ({faults})", subject)
    return weights


@contextlib.contextmanager
def _at_most(number: int) -> Iterator[None]:
    """Let this thread build no more parameters: a million layers take memory even without any.

    Raises:
        ValueError: there are more.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    thread, count = threading.get_ident(), 0

    def seen(*_: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > number:
            raise ValueError("it would have more parameters than there are weights")

    handle = register_module_parameter_registration_hook(seen)
    try:
        yield
    finally:
        handle.remove()


def _read_checkpoint(path: Path, entry: str) -> dict[str, Tensor]:
    import torch

    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Of the many ways to be no checkpoint.
        if type(error).__name__ != "UnpicklingError":
            raise ModelError(f"the weights cannot be read ({_line(error)})", path) from error
        problem = "the checkpoint holds more than tensors, or is none; it is refused"
        raise ModelError(problem, path, "Ask its publisher for safetensors") from error
    if entry:
        if not isinstance(found, dict) or list(found) != [entry]:
            raise ModelError(f"the checkpoint does not hold {entry!r} alone", path)
        found = found[entry]
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()
    ):
        raise ModelError("the checkpoint does not hold named tensors alone; it is refused", path)
    return dict(found)


def _without_prefix(weights: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    heads = {key.partition(".")[0] for key in weights}
    if len(heads) != 1 or weights.keys() & wanted:
        return weights
    return {key.partition(".")[2]: value for key, value in weights.items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
