"""Resolve speakup's requirements for every Python that it states, from wheels alone.

A missing wheel shows here before a user sees it. Nothing is installed. Without an index, nothing
can be resolved, which is said and is no failure.

    python tools/resolve.py                # this system; seconds with uv, a minute each with pip
    python tools/resolve.py --everywhere   # and the other systems, which takes uv
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin", "windows")
SHOWN = ("torch", "torchaudio", "numpy", "scipy", "av", "huggingface-hub", "typer")
NO_INDEX = re.compile(
    r"failed to establish|name resolution|dns error|client error \(connect\)|connection refused"
    r"|newconnectionerror|network is unreachable|connecttimeout|network connectivity",
    re.IGNORECASE,
)


def main() -> int:
    """Resolve for each Python; give 1 where one cannot be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--everywhere", action="store_true", help="for other systems, too")
    systems = SYSTEMS if parser.parse_args().everywhere else (None,)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    failed = False
    for python in stated_pythons(project):
        for system in systems:
            label = f"Python {python}" if system is None else f"Python {python}, {system}"
            found, fault = resolve(project, python, system)
            if found:
                listed = ", ".join(f"{name} {found[name]}" for name in SHOWN if name in found)
                print(f"{label}: {listed}", flush=True)
            elif NO_INDEX.search(fault):
                print(f"{label}: not resolved, as no index can be reached", flush=True)
            else:
                failed = True
                print(f"{label}: cannot be resolved\n{fault}", file=sys.stderr, flush=True)
    return int(failed)


def stated_pythons(project: dict[str, list[str]]) -> list[str]:
    """List the Pythons that the classifiers state, such as 3.11."""
    stated = [re.fullmatch(r".*Python :: (3\.\d+)", line) for line in project["classifiers"]]
    return [match[1] for match in stated if match is not None]


def resolve(
    project: dict[str, list[str]], python: str, system: str | None
) -> tuple[dict[str, str], str]:
    """Find the newest versions that fit together; give them by name, or why there are none."""
    if uv := uv_command():
        lines = "\n".join(project["dependencies"])
        words = [*uv, "pip", "compile", "-q", "--no-header", "--only-binary", ":all:", "-"]
        words += ["--python-version", python]
        words += ["--python-platform", system] if system else []
        done = subprocess.run(words, input=lines, capture_output=True, text=True, cwd=ROOT)
        found = dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE))
        return (found if done.returncode == 0 else {}), done.stderr
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        words += ["--only-binary", ":all:", "--python-version", python, "--target", folder]
        words += ["--report", str(report), *project["dependencies"]]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            return {}, done.stderr
        items = [item["metadata"] for item in json.loads(report.read_text("utf-8"))["install"]]
    return {item["name"].lower(): item["version"] for item in items}, ""


def uv_command() -> list[str]:
    """Give the words that run uv, or none where it is not there."""
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    return ["uv"] if shutil.which("uv") else []


if __name__ == "__main__":
    sys.exit(main())
