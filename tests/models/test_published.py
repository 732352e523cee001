"""The pinned table, and each published layout loaded from a checkpoint of its form."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from golden import Golden
from hub import Hub, environment, run
from torch import nn

from speakup.config import PRESETS, Config
from speakup.errors import ModelError
from speakup.models import published, weights
from speakup.models.catalogue import (
    choose_models,
    find_card,
    list_models,
    load_model,
    remove_model,
    verify_model,
)
from speakup.models.hub import cache
from speakup.models.published import Published
from speakup.networks import ARCHITECTURES

NAMES = [model.name for model in published.on_hub()]
FOLDERS = {
    "mp-senet-dns": "mp-senet",
    "metricgan-plus": "metricgan-plus",
    "dpdfnet2": "dpdfnet",
    "lavasr-v2": "lavasr-v2",
    "ap-bwe-16k-48k": "ap-bwe",
}
SMALL: dict[str, dict[str, Any]] = {
    "mp-senet-dns": {"dense_channel": 8, "num_tsblocks": 1},
    "metricgan-plus": {"hidden_size": 8, "linear1": [16, 8], "linear2": [8, 257]},
    "dpdfnet2": {
        "conv_ch": 16,
        "enc_gru_dim": 64,
        "erb_dec_gru_dim": 64,
        "df_dec_gru_dim": 64,
        "dprnn_num_blocks": 1,
    },
    "lavasr-v2": {"dim": 16, "intermediate_dim": 32, "num_layers": 1},
    "ap-bwe-16k-48k": {"channels": 16, "layers": 1},
}


def find(name: str) -> Published:
    model = published.find(name)
    assert model is not None
    return model


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_is_exact(name: str) -> None:
    model = find(name)
    assert re.fullmatch(r"[0-9a-f]{40}", model.revision)
    assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.repository)
    assert model.licence in ("MIT", "Apache-2.0")
    assert model.paper.startswith("https://arxiv.org/abs/")
    assert NAMES.count(name) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_builds_its_network(name: str) -> None:
    model = find(name)
    with torch.device("meta"):
        network = ARCHITECTURES[model.architecture](**model.hyperparameters)
    assert sum(weight.numel() for weight in network.parameters()) == model.parameters
    stored = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    # The container round the numbers is small.
    assert stored < model.bytes < 1.03 * stored
    rate = getattr(network, "output_rate", 16_000)
    assert rate == model.sample_rate


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_is_the_one_that_was_written_down(name: str) -> None:
    model, golden = find(name), Golden(FOLDERS[name])
    golden.check_layout(lambda: ARCHITECTURES[model.architecture](**model.hyperparameters))
    root = os.environ["SPEAKUP_TEST_DATA"]
    table = Path(root, "hub", "README.md").read_text(encoding="utf-8")
    pin = f"| {model.repository} @ {model.revision} | {model.file} | {model.bytes} "
    same = f"| same | {model.file} | {model.bytes} "
    assert f"{pin}| {model.sha256}" in table or f"{same}| {model.sha256}" in table
    assert f"{model.repository} @ {model.revision}" in table


def test_presets_name_models_that_there_are() -> None:
    for preset, devices in PRESETS.items():
        for kind, models in devices.items():
            assert set(models) == {"denoise", "upsample"}
            for task, name in models.items():
                card = find_card(name)
                assert card is not None and card.task == task
                assert (card.source == "bundled") == (preset == "fast"), kind


def test_studio_is_of_the_device() -> None:
    on_cpu = choose_models(Config(preset="studio", device="cpu"))
    on_gpu = choose_models(Config(preset="studio", device="cuda:1"))
    assert on_cpu.names == ("dpdfnet2", "lavasr-v2")
    assert on_gpu.names == ("mp-senet-dns", "ap-bwe-16k-48k")
    assert choose_models(Config(preset="studio", device="mps")) == on_cpu
    mixed = Config(preset="studio", device="cpu", denoiser="x", upsample="off")
    assert choose_models(mixed).names == ("x",)


# Loading


def small_network(name: str) -> nn.Module:
    torch.manual_seed(1)
    return ARCHITECTURES[find(name).architecture](**SMALL[name]).eval()


def checkpoint(name: str, path: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Write a small network's weights in the form that the published file has."""
    state: Any = {key: value.clone() for key, value in small_network(name).state_dict().items()}
    if change is not None:
        state = change(state)
    elif find(name).entry:
        state = {find(name).entry: state}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return state


@pytest.fixture
def small_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that puts a small checkpoint where a published model's file lies."""
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)

    def put(name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> None:
        model = find(name)
        repository = f"models--{model.repository.replace('/', '--')}"
        path = tmp_path / repository / "snapshots" / model.revision / model.file
        checkpoint(name, path, change)
        content = path.read_bytes()
        pinned = dataclasses.replace(
            model,
            hyperparameters=SMALL[name],
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        others = [other for other in published.MODELS if other.name != name]
        monkeypatch.setattr(published, "MODELS", (pinned, *others))

    return put


@pytest.mark.parametrize("name", NAMES)
def test_each_published_form_is_loaded_key_by_key(
    name: str, small_models: Callable[..., None]
) -> None:
    small_models(name)
    model = load_model(name, offline=True)
    assert model.card.cached and model.revision == find(name).revision
    expected = small_network(name).state_dict()
    found = model.network.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not model.network.training
    assert verify_model(name) is None
    assert remove_model(name) > 10_000
    with pytest.raises(ModelError, match="is not in the cache"):
        load_model(name, offline=True)


def first(state: dict[str, Any]) -> str:
    return next(key for key in state if state[key].ndim > 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["missing", "unknown", "of other shapes"])
def test_keys_that_do_not_fit_are_fatal(
    name: str, how: str, small_models: Callable[..., None]
) -> None:
    def change(state: dict[str, Any]) -> Any:
        key = first(state)
        if how == "unknown":
            state["more.weight"] = torch.zeros(2)
        elif how == "missing":
            del state[key]
        else:
            state[key] = torch.zeros(7, 7, 7)
        entry = find(name).entry
        return {entry: state} if entry else state

    small_models(name, change)
    with pytest.raises(ModelError, match=f"do not match the architecture .*{how}: ") as caught:
        load_model(name, offline=True)
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)


def test_counters_of_batches_are_keys_too(small_models: Callable[..., None]) -> None:
    def change(state: dict[str, Any]) -> Any:
        return {key: value for key, value in state.items() if "num_batches" not in key}

    small_models("dpdfnet2", change)
    with pytest.raises(ModelError, match="missing: .*num_batches_tracked"):
        load_model("dpdfnet2", offline=True)


def test_one_common_prefix_is_taken_where_a_pin_says_so(
    small_models: Callable[..., None],
) -> None:
    def prefixed(state: dict[str, Any]) -> Any:
        return {f"module.{key}": value for key, value in state.items()}

    small_models("metricgan-plus", prefixed)
    assert load_model("metricgan-plus", offline=True).network is not None
    small_models("lavasr-v2", prefixed)
    with pytest.raises(ModelError, match="do not match"):
        load_model("lavasr-v2", offline=True)


class Foreign:
    """What no weights file holds."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize(
    "content",
    [
        {"generator": {"a": torch.zeros(2)}, "more": {}},
        {"a": torch.zeros(2)},
        {"generator": [torch.zeros(2)]},
        {"generator": {"a": 3.0}},
        {"generator": {1: torch.zeros(2)}},
        torch.zeros(2),
        {"generator": {"a": Foreign()}},
    ],
)
def test_what_holds_more_than_tensors_is_refused(
    content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "weights.bin")
    with pytest.raises(ModelError) as caught:
        weights.read_weights(tmp_path / "weights.bin", entry="generator")
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", b"no weights at all" * 9])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("weights.bin", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError):
            weights.read_weights(tmp_path / name)


# The whole way


STUDIO = """
import dataclasses, json
from speakup.models import published
from speakup.cli import main
pins = json.loads(sys.argv.pop(1))
published.MODELS = tuple(
    dataclasses.replace(model, **pins.get(model.name, {})) for model in published.MODELS
)
sys.exit(main())
"""


def test_studio_is_fetched_once_and_enhances(tmp_path: Path) -> None:
    hub, pins = Hub(), {}
    for name in ("dpdfnet2", "lavasr-v2"):
        path = tmp_path / name / "weights.pth"
        checkpoint(name, path)
        content, model = path.read_bytes(), find(name)
        hub.repositories[model.repository] = {model.revision: {model.file: content}}
        digest = hashlib.sha256(content).hexdigest()
        pins[name] = {
            "hyperparameters": SMALL[name],
            "bytes": len(content),
            "sha256": digest,
        }
    rate = 16_000
    noise = np.random.default_rng(0).standard_normal(rate)
    soundfile.write(tmp_path / "talk.wav", 0.1 * noise * np.hanning(rate), rate)
    words = ["enhance", str(tmp_path / "talk.wav"), "--preset", "studio", "--device", "cpu"]
    with hub.serving():
        variables = environment(tmp_path / "home", hub.address)
        start = [json.dumps(pins), *words]
        plan = run([*start, "--dry-run", "--json"], variables, STUDIO)
        assert [seen["cached"] for seen in plan.events[0]["models"]] == [False, False]  # type: ignore[attr-defined]
        assert hub.requests == []
        done = run([*start, "--json"], variables, STUDIO)
        assert done.code == 0, done.err
        hub.requests.clear()
        again = run([*start, "--json", "--overwrite"], variables, STUDIO)
        assert hub.requests == []
    for name in pins:
        assert f"hf://{find(name).repository}@{find(name).revision}" in done.err
    for run_of in (done, again):
        stages = run_of.events[0]["stages"]
        used = {stage["model"]: stage["revision"] for stage in stages if stage["model"]}  # type: ignore[attr-defined]
        assert used == {name: find(name).revision for name in pins}


# The page


def test_the_page_tells_of_every_model_what_the_table_holds() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for card in list_models():
        does = "denoise" if card.task == "denoise" else "restore the top"
        start = f"| `{card.name}` | {does}"
        (row,) = (line for line in page.splitlines() if line.startswith(start))
        assert f"{card.parameters / 1e6:.2f} M | {card.bytes / 1e6:.1f} MB | {card.licence}" in row
        assert f"{card.sample_rate / 1000:g} kHz" in row
        assert card.repository in row and card.paper in row
    for kind, megabytes in (("", "66.5 MB"), ("cuda", "128.2 MB")):
        names = PRESETS["studio"][kind].values()
        assert f"{sum(find(name).bytes for name in names) / 1e6:.1f} MB" == megabytes
        assert f"({megabytes})" in page
