"""The pages do what they say: commands and Python blocks of the README run, options exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from speakup import errors

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLIP = ROOT / "examples" / "room.flac"


def block_after(marker: str) -> str:
    """Give the fenced block that follows an HTML comment of the README."""
    found = re.search(rf"<!-- {marker} -->\s*```sh\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md has no block after <!-- {marker} -->"
    return found.group(1)


def speakup_command() -> list[str]:
    """Give the installed command of this interpreter, or the module where it is not installed."""
    beside = shutil.which("speakup", path=str(Path(sys.executable).parent))
    return [beside] if beside else [sys.executable, "-m", "speakup"]


def help_of(*command: str) -> str:
    done = subprocess.run(
        [*speakup_command(), *command, "--help"],
        capture_output=True,
        text=True,
        env={"PATH": "", "COLUMNS": "300", "TERM": "dumb", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a working folder with the recordings that the README's examples name."""
    import soundfile

    samples, rate = soundfile.read(CLIP, stop=66_150, dtype="float32")
    soundfile.write(tmp_path / "talk.wav", samples, rate)
    write_m4a(tmp_path / "memo.m4a", samples, rate)
    (tmp_path / "interviews").mkdir()
    shutil.copy(tmp_path / "talk.wav", tmp_path / "interviews" / "first.wav")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_m4a(path: Path, samples: object, rate: int) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            np.asarray(samples, np.float32)[None, :], format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def run_here(line: str) -> int:
    """Run a `speakup …` line in this process; give its exit code."""
    from speakup.cli import main

    words = shlex.split(line, comments=True)
    assert words[0] == "speakup"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        try:
            return int(main() or 0)  # type: ignore[func-returns-value]
        except SystemExit as stop:
            return int(stop.code or 0)


def test_first_block_installs_and_enhances_the_clip(tmp_path: Path) -> None:
    install, enhance = block_after("install").split(" && ")
    assert install == "pip install '.[deepfilter]'"
    command, verb, clip = shlex.split(enhance)
    assert (command, verb, ROOT / clip) == ("speakup", "enhance", CLIP)

    copy = tmp_path / CLIP.name
    shutil.copy(CLIP, copy)
    done = subprocess.run(
        [*speakup_command(), verb, copy.name, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "room_enhanced.wav").exists()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["file", "summary"]
    assert events[0]["sample_rate_out"] == 44_100
    assert events[0]["lufs_out"] == pytest.approx(-16.0, abs=0.5)
    assert events[0]["warnings"] == []


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX systems")
def test_the_lines_before_it_get_the_source_and_an_environment(tmp_path: Path) -> None:
    lines = block_after("get").splitlines()
    assert lines[0].startswith(f"git clone {project_address()} && ")
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is nothing to clone")
    lines[0] = lines[0].replace(project_address(), shlex.quote(f"file://{ROOT}") + " speakup")
    script = "\n".join([*lines, "python -c 'import sys; print(sys.prefix)'; ls examples/room.flac"])
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=variables
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "speakup" / ".venv"), "examples/room.flac"]


def project_address() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["urls"]["Repository"])


def test_every_page_and_recipe_names_the_same_repository() -> None:
    known = project_address()
    owner, name = known.split("/")[-2:]
    places = ["README.md", "CONTRIBUTING.md", "docs/install.md", "packaging/conda/recipe.yaml"]
    for place in places:
        text = (ROOT / place).read_text("utf-8")
        ours = re.findall(rf"https://github\.com/([\w.-]+)/{name}\b", text)
        assert ours and set(ours) == {owner}, place


def test_the_weekly_job_runs_the_first_command() -> None:
    job = (ROOT / ".github" / "workflows" / "weekly.yml").read_text("utf-8")
    _, enhance = block_after("install").split(" && ")
    assert f"run: {enhance}\n" in job
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    stated = [line.split(" :: ")[-1] for line in project["classifiers"] if " :: 3." in line]
    assert re.findall(r"python: \[(.*)\]", job) == [", ".join(f'"{one}"' for one in stated)]


def test_the_lowest_versions_are_those_of_the_requirements() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = text.partition("<!-- lowest -->")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|$", table, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert [f"{name}>={version}" for name, version in listed] == project["dependencies"]


def test_second_block_is_the_one_that_ci_runs() -> None:
    block = block_after("test")
    assert "\n" not in block, "one command"
    assert block.startswith("pip install -e '.[test]' && ")
    assert block.endswith("pytest -q")
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_shell_examples_run(recordings: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line in block_after("run").splitlines():
        code = run_here(line)
        assert code == 0, f"{line}\n{capfd.readouterr().err}"
    for name in ("talk_enhanced.wav", "talk.flac", "spotify.mp3", "book.wav", "half.wav"):
        assert (recordings / name).stat().st_size > 0
    assert len(list((recordings / "masters").glob("[!.]*"))) == 2
    assert len(list((recordings / "interviews_enhanced").glob("[!.]*"))) == 1


def test_python_examples_run(recordings: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)\n```", README, re.DOTALL)
    assert len(blocks) >= 2
    for number, block in enumerate(blocks):
        exec(compile(block, f"README.md, Python block {number}", "exec"), {})
    assert (recordings / "talk_master.flac").exists()


def test_example_scripts_run(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "examples" / "python_api.py"
    monkeypatch.setattr(sys, "argv", [str(script), "talk.wav"])
    exec(compile(script.read_text("utf-8"), str(script), "exec"), {"__name__": "__main__"})
    assert (recordings / "talk_spotify.flac").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_folder_script_runs_and_names_what_failed(recordings: Path, tmp_path: Path) -> None:
    folder = recordings / "interviews"
    (folder / "junk.wav").write_text("no sound at all", encoding="utf-8")
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "speakup").write_text(f'#!/bin/sh\nexec {shlex.join(speakup_command())} "$@"\n')
    (commands / "speakup").chmod(0o755)
    done = subprocess.run(
        ["bash", ROOT / "examples" / "enhance_folder.sh", folder, "masters", "--quiet"],
        env={**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "could not enhance" in done.stderr and "junk.wav" in done.stderr
    assert [path.name for path in Path("masters").iterdir()] == ["first.wav"]


def test_options_named_exist() -> None:
    shown = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", help_of("enhance")))
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL) + block_after("run")
    text = re.sub(r"`(?:pip|pipx|uv) [^`]+`", "", text)  # whose options are their own
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - {"--help"}
    assert named
    assert named - shown == set()


def test_commands_named_exist() -> None:
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.findall(r"```(?:sh|console)\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)
    lines = "\n".join(block or inline for block, inline in code)
    named = set(re.findall(r"(?:^|&& )speakup ([a-z]+)", lines, re.MULTILINE))
    others = re.search(r"The other commands are (.*?);", README, re.DOTALL)
    assert others
    named |= set(re.findall(r"`(?:speakup )?([a-z]+)`", others.group(1)))
    shown = help_of()
    missing = {name for name in named if not re.search(rf"\b{name}\b", shown)}
    assert missing == set()


def test_exit_codes_are_those_of_the_errors() -> None:
    rows = {
        int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.*) \|$", README, re.M)
    }
    assert set(rows) == {0, 1, 2, 3, 4, 5, 130}
    for error, word in {
        errors.ConfigError: "configuration",
        errors.InputError: "input",
        errors.OutputError: "output",
        errors.ModelError: "model",
    }.items():
        assert word in rows[error.exit_code]


def test_links_and_pictures_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("http:", "https:", "#")):
                file, _, heading = target.partition("#")
                assert (page.parent / file).exists(), f"{page.name} points to {target}"
                if heading:
                    there = (page.parent / file).read_text(encoding="utf-8")
                    titles = re.findall(r"^#+ (.+)$", there, re.MULTILINE)
                    anchors = [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles]
                    assert heading in anchors, f"{page.name} points to {target}"


def test_version_is_in_the_changelog_or_unreleased() -> None:
    import speakup

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0] == speakup.__version__
