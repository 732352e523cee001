"""A file that takes its decoder down costs itself alone, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from av_files import write_with_ffmpeg
from hostile import adx_without_blocks, quicktime_with_layout
from sounds import RATE, noise, read

from speakup.errors import InputError
from speakup.media import child, samples
from speakup.media.recording import probe, read_blocks


def children() -> list[int]:
    """List this process's children that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after[1]) == os.getpid() and after[0] != "Z":
            found.append(int(stat.parent.name))
    return found


on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_a_process_with_much_memory_reads_as_well(tmp_path: Path) -> None:
    """What a parent has must not count as its child's: a child would be over its limit at birth."""
    soundfile.write(tmp_path / "long.wav", np.zeros(60 * RATE), RATE)
    program = f"""
import sys, time
import numpy as np
from speakup.media.recording import read_blocks

held = np.ones({child.MOST_BYTES} // 8 + 10_000_000)
done = 0
for block in read_blocks(sys.argv[1]):
    done += block.shape[1]
    time.sleep(0.02)  # so that the child is looked at
print(done)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "long.wav")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (str(60 * RATE), "")


@pytest.mark.parametrize(
    "content", [adx_without_blocks(), *(quicktime_with_layout(k << 16 | 6) for k in (124, 126))]
)
def test_a_file_that_crashes_its_decoder_is_refused_and_the_next_one_read(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    soundfile.write(tmp_path / "good.wav", noise(1, RATE).T, RATE)
    before = os.listdir(tmp_path)
    for _ in range(2):
        try:
            # An FFmpeg without the fault reads the QuickTime ones.
            assert read(tmp_path / "bad.wav").shape == (6, 4800)
        except InputError as error:
            assert str(tmp_path / "bad.wav") in str(error)
        assert read(tmp_path / "good.wav").shape == (1, RATE)
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
def test_the_samples_are_those_decoded_here(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.m4a":
        write_with_ffmpeg(path, "aac", noise(2, 3 * RATE))
    else:
        soundfile.write(path, noise(2, 3 * RATE).T, RATE)
    path.write_bytes(path.read_bytes()[:-5000] if name == "a.flac" else path.read_bytes())
    here: list[str] = []
    there: list[str] = []
    decoded = np.concatenate(list(samples.blocks(path, 1000, None, here)), axis=1)
    np.testing.assert_array_equal(read(path, block_samples=1000, warnings=there), decoded)
    assert there == here
    assert probe(path) == samples.probe(path)


@on_linux
def test_children_are_reused_and_none_is_left_when_a_reading_is_abandoned(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(2, 100 * RATE).T, RATE)
    probe(tmp_path / "a.wav")
    before = children()
    for _ in range(5):
        reading = read_blocks(tmp_path / "a.wav")
        next(reading)
        reading.close()  # type: ignore[attr-defined]
    for _ in range(5):
        probe(tmp_path / "a.wav")
        assert read(tmp_path / "a.wav").shape[1] == 100 * RATE
    assert len(children()) <= max(len(before), 1)


@on_linux
def test_several_files_are_read_side_by_side(tmp_path: Path) -> None:
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(200_000, number / 4), RATE)
    readings = [read_blocks(tmp_path / f"{number}.wav", 1000) for number in range(3)]
    for _ in range(200):
        for number, reading in enumerate(readings):
            assert np.all(next(reading) == number / 4)
    assert [next(reading, None) for reading in readings] == [None] * 3


@on_linux
def test_a_child_that_is_killed_costs_the_file_that_it_was_at(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(2, 100 * RATE).T, RATE)
    reading = read_blocks(tmp_path / "a.wav")
    next(reading)
    for process in children():
        os.kill(process, signal.SIGKILL)
    while children():
        time.sleep(0.01)
    with pytest.raises(InputError, match=r"a\.wav: .*crash"):
        list(reading)
    assert read(tmp_path / "a.wav").shape[1] == 100 * RATE


@on_linux
def test_no_child_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(2, 100 * RATE).T, RATE)
    program = (
        "import sys, time\nfrom speakup.media.recording import read_blocks\n"
        "reading = read_blocks(sys.argv[1]); next(reading)\n"
        "from speakup.media import sandbox\n"
        "print(*[one._process.pid for one in sandbox._children._all], flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "a.wav")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert pids
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize(
    ("fault", "seconds", "code"),
    [
        ("while True: pass", 0.5, child.OUT_OF_TIME),
        ("kept = [bytearray(range(256)) * 40000 for _ in range(1000)]", 60, child.OUT_OF_MEMORY),
        ("raise MemoryError", 60, child.OUT_OF_MEMORY),
    ],
)
def test_a_child_ends_where_decoding_takes_too_long_or_too_much(
    fault: str, seconds: float, code: int
) -> None:
    program = (
        f"from speakup.media import child, samples\ndef probe(path, track):\n    {fault}\n"
        "samples.probe = probe\nchild.main()"
    )
    request = {"do": "probe", "track": None, "path": "a.wav", "seconds": seconds}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        assert process.wait(60) in (code, -getattr(signal, "SIGXCPU", code))


def test_a_long_recording_may_take_longer_than_a_moment_of_it() -> None:
    """Time counts from one block to the next; and blocks may be views of larger ones."""
    program = (
        "import time\nimport numpy as np\nfrom speakup.media import child, samples\n"
        "def blocks(path, block_samples, track, notes):\n"
        "    for _ in range(12):\n"
        "        began = time.process_time()\n"
        "        while time.process_time() - began < 0.5: pass\n"
        "        yield np.ones((3, 8), np.float32)[1:, :4]\n"
        "samples.blocks = blocks\nchild.main()"
    )
    request = {"do": "blocks", "track": None, "path": "a", "seconds": 1.5, "block_samples": 4}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        block = child.BLOCK + struct.pack("<QQ", 32, 2) + np.ones(8, np.float32).tobytes()
        assert process.stdout.read(12 * len(block)) == 12 * block
        assert process.stdout.read(1) == child.DONE
        process.stdin.close()
