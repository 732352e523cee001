"""Fetching, in real processes, from a Hub that cuts, corrupts, refuses, lies and hangs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import Done, Hub, Trouble, environment, run, start
from nets import save_model, small_mixer

MODEL = "hf://org/small"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give a model of some 100 kB, as a repository holds it."""
    folder = save_model(tmp_path_factory.mktemp("model") / "small", small_mixer(features=32))
    config = json.loads((folder / "config.json").read_text())
    config["hyperparameters"] |= {"features": 32}
    return {
        WEIGHTS: (folder / WEIGHTS).read_bytes(),
        "config.json": json.dumps(config).encode(),
        "README.md": b"---\nlicense: cc0-1.0\n---\n",
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    with Hub({"org/small": {"main": dict(files)}}).serving() as serving:
        yield serving


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def fetch(hub: Hub, home: Path, *words: str, **variables: str) -> Done:
    chosen = words if any("://" in word for word in words) else (MODEL, *words)
    return run(["models", "fetch", *chosen], environment(home, hub.address, **variables))


def snapshot(hub: Hub, home: Path) -> Path:
    return home / "hub" / "models--org--small" / "snapshots" / hub.commit("org/small")


def refused(done: Done, *parts: str) -> None:
    """Check that a model was refused on one line, that says these words and how to mend it."""
    assert done.code == 5, done.err
    assert done.out == ""
    assert done.err.startswith("speakup: error: ") and done.err.count("\n") == 1, done.err
    assert "speakup models fetch" in done.err
    for part in parts:
        assert part in done.err, done.err


def each(
    hub: Hub,
    home: Path,
    files: dict[str, bytes],
    cases: dict[str, list[dict[str, Any]]],
    script: str = "",
) -> dict[str, str]:
    """Fetch from a repository for each case, with its troubles, in one process.

    Returns:
        Case -> the path that came, or "error: " and what was said.
    """
    for case, troubles in cases.items():
        hub.repositories[f"org/{case}"] = {"main": dict(files)}
        for how in troubles:
            where, rest = how.get("where", "resolve"), {k: how[k] for k in how if k != "where"}
            hub.troubles.append(Trouble(where, repository=f"org/{case}", **rest))
    words = ["models", "fetch", "--json", *(f"hf://org/{case}" for case in cases)]
    done = run(words, environment(home, hub.address), script)
    said: dict[str, str] = {}
    for case, event in zip(cases, done.events, strict=True):
        error: Any = event["error"]
        said[case] = str(event.get("folder")) if error is None else f"error: {error['message']}"
        if error is not None:
            assert error["type"] in ("ModelError", "MissingFile"), error
            assert "speakup models fetch" in error["message"], error
            assert f"speakup: error: {error['message']}\n" in done.err
    failed = any(text.startswith("error: ") for text in said.values())
    assert done.code == (5 if failed else 0)
    return said


def nothing_left(home: Path) -> None:
    """Check that the cache shows no weights, and holds no part of them."""
    left = [path for path in home.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert left == []


# What goes well


def test_a_model_is_fetched_once_and_then_used_without_a_request(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    done = fetch(hub, home)
    assert (done.code, done.out) == (0, f"{snapshot(hub, home)}\n")
    assert f"hf://org/small@{hub.commit('org/small')} (CC0-1.0)" in done.err
    for name, content in files.items():
        assert (snapshot(hub, home) / name).read_bytes() == content
    assert len(hub.asked("GET", f"cdn/org/small/resolve/{hub.commit('org/small')}")) == 1

    hub.requests.clear()
    variables = environment(home, hub.address)
    for words in (["models", "fetch", MODEL], ["models", "path", MODEL, "--offline"]):
        assert run(words, variables).out == done.out
    verified = run(["models", "verify", MODEL], variables)
    assert (verified.code, verified.out) == (0, f"{MODEL}: as it must be\n")
    assert fetch(hub, home, HF_HUB_OFFLINE="1").code == 0
    assert hub.requests == []


def test_the_hubs_own_library_finds_what_was_fetched(hub: Hub, home: Path) -> None:
    assert fetch(hub, home).code == 0
    hub.requests.clear()
    script = """
import sys
from huggingface_hub import hf_hub_download, scan_cache_dir
print(hf_hub_download("org/small", "model.safetensors", local_files_only=True))
(repo,) = scan_cache_dir().repos
print(repo.repo_id, repo.nb_files, *(ref for ref in repo.refs))
"""
    done = run([], environment(home, hub.address), script)
    assert done.out.splitlines() == [str(snapshot(hub, home) / WEIGHTS), "org/small 3 main"]


def test_what_the_hubs_own_library_fetched_is_used(hub: Hub, home: Path) -> None:
    script = "import huggingface_hub as h; h.hf_hub_download('org/small', 'config.json');"
    script += "h.hf_hub_download('org/small', 'model.safetensors')"
    assert run([], environment(home, hub.address), script).code == 0
    hub.requests.clear()
    assert fetch(hub, home).code == 0
    assert hub.requests == []


def test_requests_tell_of_the_user_only_the_token_and_only_the_hub(hub: Hub, home: Path) -> None:
    done = fetch(hub, home, HF_TOKEN="hf_secret", AGENT="a-program")
    assert done.code == 0
    for request in hub.requests:
        assert request.headers["user-agent"].startswith("speakup/")
        assert " " not in request.headers["user-agent"]
        sent = request.headers.get("authorization")
        assert sent == (None if request.path.startswith("/cdn") else "Bearer hf_secret")
    assert all("/resolve/" in request.path for request in hub.requests)


def test_a_branch_is_looked_up_again_only_when_asked(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    assert fetch(hub, home).code == 0
    hub.repositories["org/small"] = {"f" * 40: dict(files), "main": {}}
    hub.trouble("/main/", commit="f" * 40)
    assert fetch(hub, home).out == f"{snapshot(hub, home)}\n"
    hub.repositories["org/small"]["main"] = dict(files)
    assert fetch(hub, home, "--refresh").out == f"{snapshot(hub, home).parent / ('f' * 40)}\n"


def test_two_processes_fetch_a_file_once(hub: Hub, home: Path) -> None:
    hub.trouble("/cdn/", pace=0.02)
    variables = environment(home, hub.address)
    both = [start(["models", "fetch", MODEL], variables) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert len(hub.asked("GET", "/cdn/")) == 1


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal")
def test_a_progress_bar_is_for_terminals_alone(hub: Hub, home: Path) -> None:
    import pty

    hub.trouble("/cdn/", pace=0.05)
    for words, shown in (((), True), (("-q",), False)):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "speakup", "models", "fetch", MODEL, *words]
        variables = environment(home / ("x".join(words)), hub.address, TERM="xterm", COLUMNS="99")
        with subprocess.Popen(command, env=variables, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            seen = b""
            with contextlib.suppress(OSError):  # which is how the end of a terminal is told
                while piece := os.read(ours, 4_096):
                    seen += piece
        os.close(ours)
        assert process.returncode == 0, seen
        assert (b"model.safetensors" in seen and b"%" in seen) == shown
    assert "%" not in fetch(hub, home).err


def test_json_tells_what_came_of_each(hub: Hub, home: Path) -> None:
    done = fetch(hub, home, MODEL, "hf://org/nothing", "--json")
    first, second = done.events
    assert (done.code, first["status"], second["status"]) == (5, "ok", "failed")
    assert first["revision"] == hub.commit("org/small") and first["error"] is None
    assert "no such repository" in second["error"]["message"]  # type: ignore[index]


# Lines that break


@pytest.mark.parametrize("ignore_range", [False, True])
def test_a_cut_download_goes_on(
    hub: Hub, home: Path, files: dict[str, bytes], ignore_range: bool
) -> None:
    hub.trouble("/cdn/", times=1, cut=30_000)
    hub.trouble("/cdn/", times=1, cut=50_000, ignore_range=ignore_range)
    assert fetch(hub, home).code == 0
    assert (snapshot(hub, home) / WEIGHTS).read_bytes() == files[WEIGHTS]
    ranges = [request.headers.get("range") for request in hub.asked("GET", "/cdn/")]
    assert ranges[:2] == [None, "bytes=30000-"] and len(ranges) == 3


def test_an_interrupted_download_goes_on_in_the_next_process(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    hub.trouble("/cdn/", times=1, pace=0.1)
    with start(["models", "fetch", MODEL], environment(home, hub.address)) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if any(path.stat().st_size > 8_000 for path in home.rglob("*.incomplete")):
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted. The same command goes on" in err and "Traceback" not in err
    assert not (snapshot(hub, home) / WEIGHTS).exists()
    assert fetch(hub, home).code == 0
    assert (snapshot(hub, home) / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert hub.asked("GET", "/cdn/")[-1].headers["range"].startswith("bytes=")
    assert list(home.rglob("*.incomplete")) == []


def test_what_was_left_of_something_else_is_not_taken(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    blobs = home / "hub" / "models--org--small" / "blobs"
    blobs.mkdir(parents=True)
    name = hashlib.sha256(files[WEIGHTS]).hexdigest()
    (blobs / f"{name}.incomplete").write_bytes(b"x" * 20_000)
    assert fetch(hub, home).code == 0
    assert (snapshot(hub, home) / WEIGHTS).read_bytes() == files[WEIGHTS]
    (blobs / name).unlink()
    (blobs / f"{name}.incomplete").write_bytes(b"x" * (len(files[WEIGHTS]) + 5))
    assert fetch(hub, home).code == 0


def test_passing_troubles_pass(hub: Hub, home: Path, files: dict[str, bytes]) -> None:
    small, large = "config.json", "/cdn/"
    cases = {
        "asked": [{"where": small, "method": "HEAD", "times": 1, "status": 503}],
        "sent": [{"where": small, "method": "GET", "times": 1, "status": 500}],
        "busy": [{"where": large, "times": 1, "status": 429, "headers": {"Retry-After": "1"}}],
        "hanging": [{"where": large, "times": 1, "hang": 3.0}],
        "cut": [{"where": large, "times": 1, "cut": 0}],
        "flipped": [{"where": large, "times": 1, "flip": True}],
        "one-etag": [{"etag": "../../../../out"}],
        "slow": [{"where": large, "pace": 0.01}],
        "cardless": [{"where": "README.md", "status": 404}],
        "part": [
            {"where": large, "times": 1, "cut": 20_000},
            {"where": large, "times": 1, "status": 416},
        ],
    }
    for case, folder in each(hub, home, files, cases).items():
        for name, content in files.items():
            if (case, name) != ("cardless", "README.md"):
                assert (Path(folder) / name).read_bytes() == content, case
    assert {path.name for path in home.parent.iterdir()} == {"home"}


# What is not what it must be


def test_what_is_wrong_is_fetched_twice_and_refused(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    twice = {
        "flipped": {"flip": True},
        "shorter": {"announce": 10},
        "longer": {"extra": 10},
        "less": {"announce": -10},
    }
    cases = {case: [{"where": "/cdn/"} | how] for case, how in twice.items()}
    cases["lie"] = [{"where": WEIGHTS, "method": "HEAD", "announce": 10}]
    said = each(hub, home, files, cases)
    assert f"{WEIGHTS}, fetched twice, has the SHA-256" in said["flipped"]
    for case in ("shorter", "less", "lie"):
        assert f"{WEIGHTS}, fetched twice, has" in said[case]
        assert "bytes instead of" in said[case]
    assert "has more than" in said["longer"]
    for case in twice:
        assert len(hub.asked("GET", f"/cdn/org/{case}/")) == 2
    nothing_left(home)


def test_damage_in_the_cache_is_found_and_mended(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    assert fetch(hub, home).code == 0
    weights = snapshot(hub, home) / WEIGHTS
    weights.write_bytes(files[WEIGHTS][:-3] + b"abc")
    variables = environment(home, hub.address)
    refused(run(["models", "verify", MODEL], variables), "has the SHA-256", f"fetch {MODEL}")
    refused(run(["models", "fetch", MODEL, "--offline"], variables), "in the cache has the SHA-256")
    assert fetch(hub, home).code == 0
    assert weights.read_bytes() == files[WEIGHTS]
    weights.write_bytes(b"")
    assert fetch(hub, home).code == 0
    assert weights.read_bytes() == files[WEIGHTS]


def test_answers_that_make_no_sense_are_refused(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    loop = "/org/loop/resolve/main/config.json"
    cases = {
        "outside": [{"commit": "../../../../out"}],
        "nameless": [{"commit": ""}],
        "other": [{"where": WEIGHTS, "commit": "0" * 40}],
        "loop": [{"status": 302, "headers": {"Location": loop}}],
        "gone": [{"where": WEIGHTS, "location": "http://localhost:9/gone"}],
        "page": [{"status": 200}],
        "stuck": [{"where": "/cdn/", "cut": 30_000, "ignore_range": True}],
    }
    said = each(hub, home, files, cases)
    assert "names no commit" in said["outside"]
    assert "answers for the commit" in said["other"]
    for case in ("nameless", "loop", "page"):
        assert "speaks not as the Hub does" in said[case]
    assert "cannot be reached" in said["gone"]
    assert "the connection to the Hub broke" in said["stuck"]
    assert len(hub.asked("GET", "/cdn/org/stuck/")) == 3
    assert {path.name for path in home.parent.iterdir()} == {"home"}


# Answers without end or measure


LITTLE_MEMORY = """
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
sys.exit(speakup.cli.main())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_no_answer_fills_disk_or_memory(hub: Hub, home: Path, files: dict[str, bytes]) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(2_048)]) + packer.flush()
    here = "/org/detour/resolve/main/config.json"
    endless = {
        "config": {"where": "config.json", "method": "GET"},
        "card": {"where": "README.md", "method": "GET"},
        "weights": {"where": "/cdn/"},
        "sizeless": {"where": "config.json", "sizeless": True},
        "refusal": {"where": "config.json", "method": "GET", "status": 403},
        "detour": {"method": "GET", "status": 302, "headers": {"Location": here}},
    }
    cases: dict[str, list[dict[str, Any]]] = {
        case: [{"where": "resolve", "endless": True} | how] for case, how in endless.items()
    }
    cases |= {
        "packed": [{"where": "/cdn/", "packed": bomb}],
        "packed-config": [{"where": "config.json", "method": "GET", "packed": bomb}],
        "huge": [{"where": WEIGHTS, "announce": 2 << 30}],
        "huge-config": [{"where": "config.json", "announce": 1 << 20}],
        "unknown": [{"where": "config.json", "etag": "x", "sizeless": True}],
    }
    said = each(hub, home, files, cases, LITTLE_MEMORY)
    for case in ("config", "card", "weights", "sizeless"):
        assert "has more than" in said[case], said[case]
    assert "refuses config.json" in said["refusal"]
    assert "speaks not as the Hub does" in said["detour"]
    assert "packed" in said["packed"] and "packed" in said["packed-config"]
    for case in ("huge", "huge-config"):
        assert "are taken" in said[case]
    assert "neither size nor hash" in said["unknown"]
    assert hub.asked("GET", "/cdn/org/huge/") == []
    assert hub.sent < 100 << 20, "what the lines hold before anybody says no"
    nothing_left(home)


def test_no_answer_takes_for_ever(hub: Hub, home: Path, files: dict[str, bytes]) -> None:
    """A byte now and then keeps no time limit from ending the wait."""
    cases: dict[str, dict[str, Any]] = {
        "asked": {"where": "config.json", "method": "HEAD", "drip": 0.3},
        "sent": {"where": "config.json", "method": "GET", "drip": 0.3},
        "body": {"where": "/cdn/", "drip": 0.002},
    }
    for case, how in cases.items():
        hub.repositories[f"org/{case}"] = {"main": dict(files)}
        hub.troubles.append(Trouble(repository=f"org/{case}", **how))
    variables = environment(home, hub.address)
    began = [start(["models", "fetch", f"hf://org/{case}"], variables) for case in cases]
    for process in began:
        _, err = process.communicate(timeout=90)
        assert process.returncode == 5 and "time-out" in err, err
        assert "HF_HUB_DOWNLOAD_TIMEOUT=" in err


def test_a_config_cut_short_does_not_stay(hub: Hub, home: Path, files: dict[str, bytes]) -> None:
    variables = environment(home, hub.address)
    config = "config.json"
    for case, etag in (("named", None), ("nameless", "its-own")):
        name = f"org/{case}"
        whole = files[config] + b"\n"
        hub.repositories[name] = {"main": files | {config: whole}}
        # What is announced comes, and the last brace does not.
        hub.troubles = [Trouble(config, announce=-2, cut=len(whole) - 2, etag=etag)]
        refused(run(["models", "fetch", f"hf://{name}"], variables), "config.json")
        hub.troubles = [Trouble(config, etag=etag)]
        done = run(["models", "fetch", f"hf://{name}"], variables)
        assert done.code == 0, done.err
        # Also one that another program has left.
        (Path(done.out.strip()) / config).write_bytes(whole[:-2])
        assert run(["models", "fetch", f"hf://{name}"], variables).code == 0
        assert (Path(done.out.strip()) / config).read_bytes() == whole
        (Path(done.out.strip()) / config).write_bytes(whole[:-2])
        refused(run(["models", "fetch", f"hf://{name}", "--offline"], variables))


# A cache that others write to


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "file"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    return path


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_file_behind_a_link_in_the_cache_is_touched(
    hub: Hub, home: Path, files: dict[str, bytes], mine: Path, link: Callable[[Path, Path], None]
) -> None:
    cache, repository = home / "hub", "models--org--small"
    blob = hashlib.sha256(files[WEIGHTS]).hexdigest()
    places = [f"{repository}/blobs/{blob}.incomplete", f"{repository}/refs/main"]
    if link is os.symlink:
        places.append(f".locks/{repository}/{blob}.lock")
    for place in places:
        (cache / place).parent.mkdir(parents=True, exist_ok=True)
        link(mine, cache / place)
    assert fetch(hub, home).code == 0
    assert mine.read_bytes() == b"precious"
    assert (snapshot(hub, home) / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (cache / repository / "refs" / "main").read_text() == hub.commit("org/small")


def test_no_folder_behind_a_link_in_the_cache_is_written_to(
    hub: Hub, home: Path, files: dict[str, bytes], mine: Path
) -> None:
    variables = environment(home, hub.address)
    for number, place in enumerate(("blobs", "snapshots", "snapshots/COMMIT", "refs")):
        name = f"org/small{number}"
        hub.repositories[name] = {"main": dict(files)}
        link = home / "hub" / f"models--org--small{number}" / place
        link = link.with_name(link.name.replace("COMMIT", hub.commit(name)))
        link.parent.mkdir(parents=True)
        link.symlink_to(mine.parent, target_is_directory=True)
        refused(run(["models", "fetch", f"hf://{name}"], variables), "a link leads elsewhere")
    assert [path.read_bytes() for path in mine.parent.iterdir()] == [b"precious"]


def test_nothing_outside_the_cache_is_removed(
    hub: Hub, home: Path, files: dict[str, bytes], mine: Path
) -> None:
    assert fetch(hub, home).code == 0
    card = snapshot(hub, home) / "README.md"
    card.unlink()
    card.symlink_to(mine)
    assert run(["models", "remove", MODEL], environment(home, hub.address)).code == 0
    assert mine.read_bytes() == b"precious"
    assert list((home / "hub").glob("models--*")) == []


def test_nothing_in_a_folder_behind_a_link_is_removed(
    hub: Hub, home: Path, files: dict[str, bytes], mine: Path
) -> None:
    assert fetch(hub, home).code == 0
    place = snapshot(hub, home)
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    place.symlink_to(mine.parent, target_is_directory=True)
    for name, content in files.items():
        (mine.parent / name).write_bytes(content)
    done = run(["models", "remove", MODEL], environment(home, hub.address))
    assert done.code == 5 and "a link leads elsewhere" in done.err
    assert {path.name for path in mine.parent.iterdir()} == {"file", *files}


@pytest.mark.parametrize("note", ["../../../../mine", "/mine", "", "main", "0" * 41])
def test_a_branch_stands_for_commits_alone(
    hub: Hub, home: Path, files: dict[str, bytes], mine: Path, note: str
) -> None:
    for name, content in files.items():
        (mine.parent / name).write_bytes(content)
    branch = home / "hub" / "models--org--small" / "refs" / "main"
    branch.parent.mkdir(parents=True)
    branch.write_text(note.replace("mine", str(mine.parent).lstrip("/")))
    refused(fetch(hub, home, "--offline"), "is not in the cache")
    assert fetch(hub, home).out == f"{snapshot(hub, home)}\n"


def test_a_revision_never_leads_out_of_the_cache(hub: Hub, home: Path, mine: Path) -> None:
    done = fetch(hub, home, f"{MODEL}@{mine}")
    assert done.code == 5 and "is no Hub address" in done.err
    assert mine.read_bytes() == b"precious"
    assert hub.requests == []


# What is refused


def test_refusals_are_said(hub: Hub, home: Path, files: dict[str, bytes]) -> None:
    def code(status: int, error: str = "", **more: Any) -> list[dict[str, Any]]:
        headers = {"X-Error-Code": error} if error else {}
        return [{"where": "config.json", "status": status, "headers": headers} | more]

    cases = {
        "gated": code(403, "GatedRepo"),
        "hidden": code(401, "RepoNotFound"),
        "private": code(401),
        "forbidden": code(403),
        "unsent": code(403, method="GET"),
        "nowhere": code(404, "RepoNotFound"),
        "plain": code(404),
        "untagged": code(404, "RevisionNotFound"),
        "empty": code(404, "EntryNotFound"),
        "over": code(410),
        "busy": code(429, headers={"Retry-After": "3600"}),
        "ill": code(500),
        "closed": code(503, method="GET"),
        "silent": code(0, method="HEAD", hang=30.0),
        "mute": [{"where": "/cdn/", "hang": 30.0}],
    }
    said = each(hub, home, files, cases)
    access = f"Ask for access at {hub.address}/org/gated, then HF_TOKEN=<your token> speakup models"
    assert access in said["gated"]
    for case in ("hidden", "private", "nowhere", "plain"):
        assert "no such repository, or does not show it to everyone" in said[case]
        assert "HF_TOKEN=<your token> speakup models fetch hf://" in said[case]
    for case in ("forbidden", "unsent", "over"):
        assert f"refuses config.json of {hub.address}/org/{case}" in said[case]
    assert "has no revision main" in said["untagged"]
    assert "has no config.json at main" in said["empty"]
    assert "too many requests from here (429). Again in 3600 s" in said["busy"]
    assert "an error of its own (500)" in said["ill"]
    assert "an error of its own (503)" in said["closed"]
    for case in ("silent", "mute"):
        assert "time-out" in said[case] and "HF_HUB_DOWNLOAD_TIMEOUT=" in said[case]


def test_a_token_that_is_not_accepted_is_said(hub: Hub, home: Path) -> None:
    hub.trouble("config.json", status=401)
    refused(fetch(hub, home, HF_TOKEN="hf_old"), "does not accept the token (401)")


def test_no_network_is_said(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(["models", "fetch", MODEL], environment(home, f"http://{nowhere}"))
        refused(done, f"cannot be reached at http://{nowhere}", f"fetch {MODEL}")
        variables = environment(home, "http://hub.invalid", HTTP_PROXY=f"http://{nowhere}")
        refused(run(["models", "fetch", MODEL], variables), f"through the proxy {nowhere}")


def test_a_proxy_is_used(hub: Hub, home: Path) -> None:
    variables = environment(home, "http://hub.invalid", HTTP_PROXY=hub.address)
    run(["models", "fetch", MODEL], variables)
    assert any("/org/small/resolve/main/config.json" in seen.path for seen in hub.requests)


@pytest.mark.parametrize("how", [("--offline", {}), ("-q", {"HF_HUB_OFFLINE": "1"})])
def test_offline_asks_for_nothing_and_says_what_to_fetch(
    hub: Hub, home: Path, how: tuple[str, dict[str, str]]
) -> None:
    word, variables = how
    refused(fetch(hub, home, word, **variables), "no request may be made", f"fetch {MODEL} gets")
    assert hub.requests == []


def test_an_endpoint_that_is_no_address_is_said(home: Path) -> None:
    refused(run(["models", "fetch", MODEL], environment(home, "nonsense")), "is no address")


# Disks


def test_a_full_disk_is_said(hub: Hub, small_disk: Path, files: dict[str, bytes]) -> None:
    hub.repositories["org/small"]["main"][WEIGHTS] = files[WEIGHTS] + bytes(300_000)
    refused(fetch(hub, small_disk), "disk of the cache is full", "HF_HOME=<another folder>")
    # Also where the size is not known beforehand.
    hub.trouble("/cdn/", extra=1)
    hub.trouble("/org/small/resolve", etag="unknown")
    refused(fetch(hub, small_disk), "full")


def test_a_cache_that_cannot_be_written_is_said(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(fetch(hub, tmp_path / "file"), "the cache cannot be written", "HF_HOME=<another")


def test_a_cache_that_cannot_be_written_can_be_used(
    hub: Hub, small_disk: Path, tmp_path: Path
) -> None:
    small = save_model(tmp_path / "small", small_mixer())
    hub.repositories["org/small"]["main"] = {
        path.name: path.read_bytes() for path in small.iterdir()
    }
    assert fetch(hub, small_disk).code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    hub.requests.clear()
    assert fetch(hub, small_disk, "-q").err == ""
    assert hub.requests == []


# Licences


def test_non_commercial_licences_are_accepted_first(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    hub.repositories["org/small"]["main"]["README.md"] = (
        b"---\ntags:\n- speech\nlicense: cc-by-nc-4.0\n---\nText\n"
    )
    refused(fetch(hub, home), "cc-by-nc-4.0, forbids commercial use", "--accept-license")
    assert hub.asked("", WEIGHTS) == []
    assert fetch(hub, home, "--accept-license").code == 0
    refused(fetch(hub, home), "--accept-license")
    config = json.loads(files["config.json"]) | {"licence": "CC-BY-NC-SA-4.0"}
    hub.repositories["org/nc"] = {
        "main": dict(files) | {"config.json": json.dumps(config).encode()}
    }
    refused(fetch(hub, home, "hf://org/nc"), "CC-BY-NC-SA-4.0")


# Removing


def test_what_is_removed_is_gone(hub: Hub, home: Path, files: dict[str, bytes]) -> None:
    hub.repositories["org/small"]["v1"] = dict(files)
    assert fetch(hub, home, MODEL, f"{MODEL}@v1").code == 0
    variables = environment(home, hub.address)
    # Two revisions share one content; it goes with the second.
    (event,) = run(["models", "remove", MODEL, "--json"], variables).events
    assert (event["status"], event["bytes"]) == ("ok", 0)
    assert fetch(hub, home, f"{MODEL}@v1", "--offline").code == 0
    (event,) = run(["models", "remove", f"{MODEL}@v1", "--json"], variables).events
    assert event["bytes"] == sum(map(len, files.values()))
    assert list((home / "hub").glob("models--*")) == []
    refused_twice = run(["models", "remove", MODEL], variables)
    assert refused_twice.code == 5 and "is not in the cache" in refused_twice.err
    bundled = run(["models", "remove", "speakup-denoise-16k"], variables)
    assert bundled.code == 5 and "comes with the program" in bundled.err


# Pinned files


PINNED = """
import dataclasses, json, sys
from speakup.models import published
from speakup.cli import main
pins = json.loads(sys.argv.pop(1))
for name, changes in pins.items():
    published.MODELS[name] = dataclasses.replace(published.MODELS[name], **changes)
sys.exit(main())
"""


def test_a_published_file_is_held_to_its_pin(hub: Hub, home: Path) -> None:
    content = b"weights" * 5_000
    commit = "a" * 40
    hub.repositories["Ceva-IP/DPDFNet"] = {commit: {"checkpoints/dpdfnet2.pth": content}}
    pin = {"revision": commit, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def tried(**changes: Any) -> Done:
        pins = json.dumps({"dpdfnet2": pin | changes})
        return run([pins, "models", "fetch", "dpdfnet2"], environment(home, hub.address), PINNED)

    refused(tried(bytes=7), "has 35000 bytes instead of 7", "speakup models fetch dpdfnet2")
    refused(tried(sha256="0" * 64), "has the SHA-256", "instead of 000000000000…")
    nothing_left(home)
    done = tried()
    assert done.code == 0, done.err
    folder = home / "hub" / "models--Ceva-IP--DPDFNet" / "snapshots" / commit
    assert done.out == f"{folder}\n"
    assert f"hf://Ceva-IP/DPDFNet@{commit} (Apache-2.0)" in done.err
    hub.requests.clear()
    assert tried().out == done.out
    assert hub.requests == []
    # A mirror with a commit of its own gives the same bytes.
    hub.trouble("/Ceva-IP/", commit="b" * 40, etag="its-own")
    (folder / "checkpoints" / "dpdfnet2.pth").unlink()
    assert tried().out == done.out
    assert len(hub.asked("GET")) == 0, "the content is still there"


def test_studio_says_what_to_fetch_and_where_from(home: Path, tmp_path: Path) -> None:
    recording = tmp_path / "talk.wav"
    recording.write_bytes(b"")
    words = ["enhance", str(recording), "--preset", "studio", "--device", "cpu"]
    nowhere = environment(home, "http://127.0.0.1:9")
    for done in (run([*words, "--offline"], nowhere), run(words, nowhere)):
        refused(done, "speakup models fetch dpdfnet2 lavasr-v2")
        assert "checkpoints/dpdfnet2.pth (10.2 MB) of http://127.0.0.1:9/Ceva-IP" in done.err
        assert "at 49d9463ca1d44300a123f02decdec595ac7e54fe" in done.err
