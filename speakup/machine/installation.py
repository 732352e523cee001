"""How this copy of speakup is installed, what it needs, and the commands that mend it."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

_NAME = "speakup"
_PIP = (sys.executable, "-m", "pip", "install")
_TRIED_FILE = Path(__file__).with_name("tried.txt")
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)\s*(?:\[[^]]*\])?\s*\(?\s*(?:>=\s*(?P<lowest>[\d.]+))?[^;]*"
    r"(?:;.*?extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?"
)
_TRIED = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>[\w.+]+)"
    r"(?:\s*;\s*python_version\s*(?P<sign><|>=)\s*['\"](?P<python>[\d.]+)['\"])?\s*$"
)


@dataclass(frozen=True)
class Requirement:
    """A package that speakup asks for.

    Attributes:
        name: As on the index, such as huggingface-hub.
        lowest: The oldest version that will do.
        extra: The extra that asks for it; "" where speakup itself does.
    """

    name: str
    lowest: str
    extra: str = ""

    def __str__(self) -> str:
        return f"{self.name}>={self.lowest}" if self.lowest else self.name


def requirements() -> list[Requirement]:
    """List what speakup asks for, by the metadata of the installation."""
    found = []
    for line in _stated_requirements():
        match = _REQUIREMENT.match(line)
        assert match is not None, line
        if match["name"] != _NAME:  # an extra that is made of others
            found.append(Requirement(match["name"], match["lowest"] or "", match["extra"] or ""))
    return found


def supported_pythons() -> tuple[tuple[int, int], tuple[int, int]]:
    """Give the first Python that speakup runs on, and the last."""
    try:
        stated = importlib.metadata.metadata(_NAME)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        stated = _project()["requires-python"]
    first = re.search(r">=\s*3\.(\d+)", stated)
    end = re.search(r"<\s*3\.(\d+)", stated)
    assert first is not None and end is not None, stated
    return (3, int(first[1])), (3, int(end[1]) - 1)


def version_of(package: str) -> str | None:
    """Give the version of a package that is installed, else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def module_of(package: str) -> str:
    """Give the module that a package is imported by: yaml for pyyaml."""
    wanted = _plain(package)
    found = [
        module
        for module, packages in _modules().items()
        if wanted in map(_plain, packages) and not module.startswith("_")
    ]
    return wanted if wanted in found or not found else min(found)


def is_older(version: str, than: str) -> bool:
    """Compare two versions by their leading numbers: 2.13.0+cpu is 2.13.0."""
    return _numbers(version) < _numbers(than)


def tried_versions() -> dict[str, str]:
    """Give the newest version of each package that speakup was tried with, on this Python."""
    found = {}
    for line in _TRIED_FILE.read_text("utf-8").splitlines():
        match = _TRIED.match(line)
        if match is None or not _fits(match["sign"], match["python"]):
            continue
        found[match["name"]] = match["version"]
    return found


def install_command(*packages: str) -> str:
    """Give the command that installs packages into the environment that speakup runs in.

    A Python that its system manages refuses packages (PEP 668); the command then makes an
    environment of its own, with speakup and these packages in it.
    """
    if _is_managed_by_the_system():
        return new_environment_command(sys.executable, *packages)
    if importlib.util.find_spec("pip") is None:
        if shutil.which("uv") is not None:
            return _joined("uv", "pip", "install", "--python", sys.executable, *packages)
        ensured = _joined(sys.executable, "-m", "ensurepip")
        return f"{ensured} && {_joined(*_PIP, *packages)}"
    return _joined(*_PIP, *packages)


def reinstall_command() -> str:
    """Give the command that installs this version of speakup anew, from where it came."""
    return install_command("--force-reinstall", "--no-deps", *_origin())


def new_environment_command(python: str, *packages: str) -> str:
    """Give the command that makes a fresh environment of a Python, with speakup in it."""
    folder = Path(os.path.expanduser("~"), ".venvs", _NAME)
    wanted = [item for item in packages if not item.startswith("-")]
    wanted = [item for item in wanted if item not in _origin()]
    pip = folder / ("Scripts" if os.name == "nt" else "bin") / "pip"
    return " && ".join(
        (
            _joined(python, "-m", "venv", str(folder)),
            _joined(str(pip), "install", *_origin(), *wanted),
        )
    )


def run_command(*words: str) -> str:
    """Give the command that runs speakup in this environment."""
    return _joined(sys.executable, "-m", _NAME, *words)


def set_command(variable: str, value: str) -> str:
    """Give the command that sets a variable in the shell of this system."""
    if os.name == "nt":
        return f"set {variable}={value}"
    return f"export {variable}={shlex.quote(value)}"


def _stated_requirements() -> Iterator[str]:
    try:
        yield from importlib.metadata.requires(_NAME) or ()
    except importlib.metadata.PackageNotFoundError:
        project = _project()
        yield from project["dependencies"]
        for extra, lines in project["optional-dependencies"].items():
            yield from (f"{line}; extra == '{extra}'" for line in lines)


def _project() -> dict[str, Any]:
    text = (_checkout() / "pyproject.toml").read_text("utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def _checkout() -> Path:
    return Path(__file__).resolve().parents[2]


def _origin() -> list[str]:
    """Give what pip is to be told to fetch this copy from: its folder, wheel, address or name."""
    try:
        distribution = importlib.metadata.distribution(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return [str(_checkout())]
    stated = json.loads(distribution.read_text("direct_url.json") or "{}")
    address = stated.get("url", "")
    if address.startswith("file:"):
        path = url2pathname(urlsplit(address).path)
        if os.path.exists(path):
            editable = stated.get("dir_info", {}).get("editable", False)
            return ["-e", path] if editable else [path]
        address = ""
    if "vcs_info" in stated:
        kind, commit = stated["vcs_info"]["vcs"], stated["vcs_info"]["commit_id"]
        return [f"{_NAME} @ {kind}+{address}@{commit}"]
    if address:
        return [f"{_NAME} @ {address}"]
    if stated:  # It came from a folder or a file that is gone.
        return [f"{_NAME} @ git+{project_address()}"]
    return [f"{_NAME}=={distribution.version}"]


def project_address() -> str:
    """Give the address of the project's repository."""
    for line in importlib.metadata.metadata(_NAME).get_all("Project-URL") or ():
        name, _, address = line.partition(", ")
        if name == "Repository":
            return str(address)
    return ""


def _is_managed_by_the_system() -> bool:
    if sys.prefix != sys.base_prefix:
        return False
    return Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()


def _joined(*words: str) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


@functools.cache
def _modules() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    digits = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]
    while digits and digits[-1] == 0:
        digits.pop()
    return tuple(digits)


def _fits(sign: str | None, python: str | None) -> bool:
    if sign is None or python is None:
        return True
    older = sys.version_info[:2] < _numbers(python)
    return older if sign == "<" else not older
