"""Python environments made for a test, sound or broken in a way of its choice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def built_wheel(folder: Path) -> Path:
    """Build speakup's wheel from the working tree, with the build backend of this environment."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("speakup-*.whl")
    return built


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, str] = {}) -> Path:
    """Write a wheel that holds these files, or nothing but its name and version."""
    module = name.replace("-", "_")
    about = f"{module}-{version}.dist-info"
    contents = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in (*contents, f"{about}/RECORD"))
    folder.mkdir(exist_ok=True)
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in contents.items():
            archive.writestr(file, text)
    return path


def wheel_of(folder: Path, name: str) -> Path:
    """Write the wheel of a package as it is installed here."""
    there = metadata.distribution(name)
    parts = [part for part in there.files or () if ".." not in part.parts]
    parts = [part for part in parts if part.suffix != ".pyc"]
    folder.mkdir(exist_ok=True)
    path = folder / f"{name.replace('-', '_')}-{there.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for part in parts:
            archive.write(str(part.locate()), str(part))
    return path


@dataclass
class Environment:
    """A virtual environment that sees this one's packages, with speakup's wheel in it.

    Attributes:
        folder: Where it is made.
        wheel: Of speakup.
        without: Distributions of this environment that it does not see.
        variables: What to set beside the environment of this process.
    """

    folder: Path
    wheel: Path
    without: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        venv.create(self.home, with_pip=False, symlinks=os.name != "nt")
        self._link_packages()
        self._unpack(self.wheel)
        (about,) = self.site.glob("speakup-*.dist-info")
        stated = {"url": self.wheel.as_uri(), "archive_info": {}}
        (about / "direct_url.json").write_text(json.dumps(stated))

    @property
    def home(self) -> Path:
        return self.folder / "env"

    @property
    def wheels(self) -> Path:
        """The folder that pip finds wheels in, instead of an index."""
        return self.folder / "wheels"

    @property
    def python(self) -> str:
        return str(self.home / ("Scripts" if os.name == "nt" else "bin") / "python")

    @property
    def site(self) -> Path:
        paths = {"base": str(self.home), "platbase": str(self.home)}
        scheme = "nt_venv" if os.name == "nt" else "posix_venv"
        return Path(sysconfig.get_path("purelib", scheme, paths))

    @property
    def packages(self) -> Path:
        """The folder of links to this environment's packages, which pip leaves alone."""
        return self.folder / "packages"

    def shadow(self, name: str, version: str, files: Mapping[str, str] = {}) -> None:
        """Install what hides a package of this environment: other files, or another version."""
        self._unpack(make_wheel(self.folder / "shadows", name, version, files))

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a line of the shell; pip finds nothing but `wheels`."""
        self.wheels.mkdir(exist_ok=True)
        return subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self._shell(), **self.variables, **variables},
        )

    def doctor(self, before: str = "", **variables: str) -> dict[str, dict[str, Any]]:
        """Give the doctor's findings by their names, the last of a name, after a command."""
        then = f"{before} && " if before else ""
        done = self.run(f'{then}"{self.python}" -m speakup doctor --json', **variables)
        assert done.returncode in (0, 1), done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["healthy"] == (done.returncode == 0)
        return {finding["name"]: finding for finding in said["findings"]}

    def _shell(self) -> dict[str, str]:
        known = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        for name in ("PYTHONPATH", "PYTHONIOENCODING", "VIRTUAL_ENV", "TMPDIR", "SPEAKUP_DEBUG"):
            known.pop(name, None)
        return {
            **known,
            "PYTHONSAFEPATH": "1",
            "HF_HOME": str(self.folder / "hub"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def _link_packages(self) -> None:
        self.packages.mkdir()
        hidden = {"speakup", *self.without}
        tops = {
            part.parts[0]
            for name in hidden
            for part in _files(name)
            if part.parts[0] not in ("..", "__pycache__")
        }
        for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for path in Path(place).iterdir():
                if path.name not in tops and path.suffix != ".pth":
                    (self.packages / path.name).symlink_to(path)
        (self.site / "packages.pth").write_text(f"{self.packages}\n")

    def _unpack(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:  # a pure wheel: this is what installing it does
            archive.extractall(self.site)


def _files(name: str) -> list[metadata.PackagePath]:
    try:
        return metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        return []
