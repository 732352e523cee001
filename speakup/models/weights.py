"""Weights files read safely, and put into a network key by key.

Safetensors holds numbers alone. A torch checkpoint is a pickle, a little program; `weights_only`
refuses all but tensors and plain containers, and we refuse what is left over.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from speakup.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHOWN = 3


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


def fill(
    network: nn.Module,
    weights: dict[str, Tensor],
    subject: object,
    *,
    may_have_prefix: bool = False,
) -> None:
    """Put weights into a network: every one has its place, and no place stays empty.

    Args:
        network: What to fill.
        weights: Name -> values of any number format.
        subject: What an error is about.
        may_have_prefix: Accept names that all begin with one more word than the network's.

    Raises:
        ModelError: a name is missing, unknown, or its shape is another.
    """
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if may_have_prefix:
        weights = _without_prefix(weights, set(wanted))
    missing, unknown = wanted.keys() - weights.keys(), weights.keys() - wanted.keys()
    others = [
        f"{key} {tuple(value.shape)} instead of {wanted[key]}"
        for key, value in weights.items()
        if key in wanted and tuple(value.shape) != wanted[key]
    ]
    faults = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("missing", sorted(missing)),
            ("unknown", sorted(unknown)),
            ("of other shapes", others),
        )
        if names
    ]
    if faults:
        raise ModelError(
            f"the weights do not match the architecture ({'; '.join(faults)})", subject
        )
    network.load_state_dict(
        {
            key: value.float() if value.is_floating_point() else value
            for key, value in weights.items()
        }
    )


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
