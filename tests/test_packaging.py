"""The wheel carries what it needs, and works away from the checkout."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import speakup

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the working tree, with the build backend of this environment."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("speakup-*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path, names: set[str]) -> Message:
    (name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(name))


def test_wheel_holds_weights_licence_and_types(names: set[str]) -> None:
    models = [path.parent.name for path in ROOT.glob("weights/*/config.json")]
    assert models, "no model is bundled"
    for model in models:
        for file in ("model.safetensors", "config.json", "CARD.md"):
            assert f"speakup/_weights/{model}/{file}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "speakup/py.typed" in names
    recipes = {f"speakup/training/recipes/{path.name}" for path in ROOT.rglob("recipes/*.toml")}
    assert recipes <= names


def test_wheel_holds_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert all(top == "speakup" or top.endswith(".dist-info") for top in tops), tops
    assert not [name for name in names if "__pycache__" in name or name.endswith((".flac", ".pt"))]


def test_metadata_opens_torch_upwards(metadata: Message) -> None:
    requires = metadata.get_all("Requires-Dist") or []
    assert "torch>=2.11" in requires
    for line in requires:
        if not line.startswith("speakup["):
            assert re.match(r"[\w.-]+>=[\d.]+(;.*)?$", line.replace(" ", "")), line
    assert metadata["Version"] == speakup.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.15,>=3.11"


def test_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:  # a pure wheel: this is what installing it does
        archive.extractall(target)
    environment = {**os.environ, "PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    home = run("-c", "import speakup; print(speakup.__file__)")
    assert Path(home.strip()).is_relative_to(target)
    listed = json.loads(run("-m", "speakup", "models", "list", "--json"))["models"]
    bundled = {path.parent.name for path in ROOT.glob("weights/*/config.json")}
    assert bundled <= {model["name"] for model in listed}
    for model in sorted(bundled):
        where = run("-m", "speakup", "models", "path", model).strip()
        assert Path(where).is_relative_to(target)
