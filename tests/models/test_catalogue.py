"""Models by name, by folder and from the Hub, and what is said of those that cannot be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from nets import SMALL_MIXER, save_model, small_extender, small_mixer

from speakup.errors import ModelError
from speakup.models import places
from speakup.models.cards import read_card
from speakup.models.catalogue import find_card, load_model
from speakup.models.places import bundled_models
from speakup.networks import ARCHITECTURES, DENOISERS


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "a-model", small_mixer())


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put two small models where the bundled ones lie."""
    folder = tmp_path / "bundled"
    save_model(folder / "one", small_mixer())
    save_model(folder / "two", small_extender(), licence="MIT")
    (folder / "no-model").mkdir()
    monkeypatch.setattr(places, "bundled_folder", lambda: folder)
    return folder


def test_bundled_models_are_listed_by_name(bundle: Path) -> None:
    one, two = bundled_models()
    assert (one.name, one.task, one.architecture) == ("one", "denoise", "band-mixer")
    assert (two.name, two.task, two.architecture) == ("two", "upsample", "band-extender")
    assert (one.sample_rate, two.sample_rate) == (16_000, 44_100)
    assert (one.licence, two.licence) == ("CC0-1.0", "MIT")
    assert one.folder == bundle / "one"
    assert one.hyperparameters == SMALL_MIXER
    assert one.parameters == sum(weight.numel() for weight in small_mixer().parameters())
    assert one.bytes == (bundle / "one" / "model.safetensors").stat().st_size


def test_bundled_models_are_had_by_name(bundle: Path) -> None:
    assert find_card("one").folder == bundle / "one"
    with pytest.raises(ModelError, match="three: no such model. Bundled: one, two"):
        find_card("three")


def test_what_this_package_bundles_is_whole() -> None:
    for card in bundled_models():
        assert card.name == card.folder.name
        model = load_model(card.name)
        assert model.card == card
        assert card.licence != "unstated" and card.description
        samples = torch.zeros(1, 2_000)
        extra = [] if card.task == "denoise" else [torch.tensor([8_000.0])]
        assert torch.isfinite(model.network(samples, *extra)).all()


def test_a_model_is_had_by_its_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_card(str(model)).folder == model
    monkeypatch.setenv("HOME", str(model.parent))
    assert find_card("~/a-model").folder == model
    monkeypatch.chdir(model.parent)
    assert find_card("a-model").folder == Path("a-model")


def test_a_loaded_model_is_what_was_saved(model: Path) -> None:
    found = load_model(str(model))
    assert found.card == read_card(model)
    assert found.revision == found.card.revision
    assert not found.network.training
    assert not any(weight.requires_grad for weight in found.network.parameters())
    assert {weight.dtype for weight in found.network.parameters()} == {torch.float32}
    waveform = 0.1 * torch.randn(1, 4_000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = small_mixer().half().float()(waveform)
        assert torch.equal(found.network(waveform), expected)


def test_the_revision_is_that_of_the_weights(tmp_path: Path) -> None:
    one = read_card(save_model(tmp_path / "1", small_mixer(1)))
    same = read_card(save_model(tmp_path / "2", small_mixer(1), description="Another"))
    other = read_card(save_model(tmp_path / "3", small_mixer(2)))
    assert one.revision == same.revision != other.revision
    assert one.revision.startswith("sha256:") and len(one.revision) == 7 + 12
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert read_card(save_model(tmp_path / commit, small_mixer(1))).revision == commit


def refused(name: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(name))
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert str(name) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["nothing", "", "no/where", "~nobody-here/model", "x" * 5_000])
def test_models_that_are_not_there_are_said_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_said_so(model: Path, name: str) -> None:
    (model / name).unlink()
    assert f"the folder has no {name}" in refused(model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no usable model folder"),
        ("{", "no usable model folder"),
        ("\xff", "no usable model folder"),
        ("[]", "holds no object"),
        ("3", "holds no object"),
        ("null", "holds no object"),
        ("{}", "lacks name, task, architecture, sample_rate, hyperparameters"),
    ],
)
def test_a_broken_config_is_said_so(model: Path, text: str, said: str) -> None:
    (model / "config.json").write_text(text, encoding="latin-1")
    assert said in refused(model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 3}, "has the name 3"),
        ({"architecture": ["band-mixer"]}, "has the architecture"),
        ({"architecture": "x" * 9_000}, "xxx...xxx"),
        ({"architecture": "transformer"}, "knows band-mixer, "),
        ({"task": "upsample"}, "is made to denoise, not to 'upsample'"),
        ({"task": "sing"}, "is made to denoise, not to 'sing'"),
        ({"sample_rate": "16k"}, "has the sample_rate '16k'"),
        ({"hyperparameters": [1]}, "has the hyperparameters"),
        ({"hyperparameters": {}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"depth": 3}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"features": -1}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"features": 0}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"groups": [[16]]}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"groups": None}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"n_fft": 0}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"features": 12}}, "do not match the architecture"),
        ({"hyperparameters": SMALL_MIXER | {"dilations": [1]}}, "do not match the architecture"),
        ({"hyperparameters": SMALL_MIXER | {"dilations": [1] * 2_000}}, "than there are weights"),
        (
            {"architecture": "band-extender", "task": "upsample", "hyperparameters": {}},
            "do not match",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_config_that_fits_nothing_is_said_so(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in refused(save_model(tmp_path / "a-model", small_mixer(), **changes))


VAST: dict[str, dict[str, Any]] = {
    "band-mixer": {"features": 4_000, "bottleneck": 4_000, "dilations": [1] * 30},
    "band-memory": {**SMALL_MIXER, "features": 4_000, "bottleneck": 4_000, "memory": [0, 1]},
    "band-extender": {"n_fft": 4_096, "features": 4_096, "expansion": 4_096, "blocks": 4_096},
    "source-filter-extender": {"n_fft": 4_096, "features": 4_096, "blocks": 4_096},
    "lavasr": {"n_fft": 4_096, "n_mels": 4_096, "dim": 4_096, "num_layers": 4_096},
    "ap-bwe": {"channels": 4_096, "layers": 4_096},
    "mp-senet": {"dense_channel": 4_096, "num_tsblocks": 4_096},
    "dpdfnet": {"conv_ch": 4_096, "dprnn_num_blocks": 4_096},
    "deepfilternet3": {"conv_ch": 4_096},
    "metricgan-plus": {"hidden_size": 4_096, "num_layers": 4_096},
    "hifi-gan-denoiser": {"n_stacks": 4_096, "n_layers_per_stack": 4_096},
}
LIMITED = """
import resource, sys
import torch
from speakup.models.catalogue import load_model
from speakup.errors import ModelError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000, used + 600_000_000))
for name in sys.argv[1:]:
    try:
        load_model(name)
    except ModelError as error:
        print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_a_network_larger_than_its_weights_is_not_built(tmp_path: Path) -> None:
    """Whatever config.json describes, memory is taken for what the file holds alone."""
    assert set(VAST) == set(ARCHITECTURES)
    folders = []
    for architecture, vast in VAST.items():
        mixer = SMALL_MIXER if architecture == "band-mixer" else {}
        task = "denoise" if architecture in DENOISERS else "upsample"
        changes = {"architecture": architecture, "task": task, "hyperparameters": mixer | vast}
        folders.append(save_model(tmp_path / architecture, small_mixer(), **changes))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, folders)], capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(VAST), done.stderr
    for line in lines:
        assert "do not match" in line or "make no network" in line, line
        assert "allocate" not in line and "argument" not in line, line


@pytest.mark.parametrize(
    "content", [b"", b"not weights", b"\xff" * 100, b'\x08\0\0\0\0\0\0\0{"a":1}']
)
def test_broken_weights_are_said_so(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert "no usable model folder" in refused(model)


def test_truncated_weights_are_said_so(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "no usable model folder" in refused(model)


@pytest.mark.parametrize("how", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_key_by_key_are_said_so(model: Path, how: str) -> None:
    weights = safetensors.torch.load_file(model / "model.safetensors")
    key = "norm.weight"
    if how == "missing":
        del weights[key]
    elif how == "extra":
        weights["norm.more"] = torch.zeros(3)
    else:
        weights[key] = torch.zeros(3)
    safetensors.torch.save_file(weights, model / "model.safetensors")
    said = refused(model)
    assert "do not match the architecture" in said and "norm." in said


@pytest.mark.parametrize(
    "address",
    [
        *("hf://", "hf://org", "hf://org/a/b", "hf://org/repo@", "hf://o rg/repo", "hf:///repo"),
        *("hf://../repo", "hf://org/..", "hf://org/.repo", "hf://org/a--b", "hf://org/repo.git"),
        *("hf://org/repo\n", f"hf://org/{'x' * 100}", "hf://örg/repo", "hf://org/repo@main\n"),
    ],
)
def test_what_is_no_address_on_the_hub_is_said_so(address: str) -> None:
    with pytest.raises(ModelError, match="is no Hub address"):
        load_model(address)


@pytest.mark.parametrize(
    "revision",
    [
        *(
            "/absolute/path",
            "//a",
            "../up",
            "a/../../b",
            "a//b",
            "a/",
            "/",
            ".",
            "..",
            ".a",
            "a/.b",
        ),
        *(
            "a.lock",
            "a.lock/b",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "C:\\a",
            "a\\b",
            "a?",
            "a*",
            "a[0]",
            "a@{1}",
        ),
        *("a@b", "@", "-a", "a\x00b", "a\x7f", "a\n", "a..b", "a.", "%2e%2e/a", "a" * 300),
    ],
)
def test_a_revision_that_git_or_a_disk_would_mind_is_refused(revision: str) -> None:
    with pytest.raises(ModelError, match="is no Hub address"):
        find_card(f"hf://org/repo@{revision}")


@pytest.mark.parametrize(
    "revision", ["main", "v1.0", "refs/pr/12", "a-b_c", "feature/x+y", "0" * 40, "_"]
)
def test_a_revision_that_the_hub_may_have_is_taken(revision: str) -> None:
    card = find_card(f"hf://org/no-such-repository@{revision}")
    assert (card.cached, card.repository) == (False, "org/no-such-repository")
