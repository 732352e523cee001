"""Sound through standard input and output, between real programs and from streaming headers."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from av_files import write_with_ffmpeg
from sounds import noise, read

from speakup.errors import ConfigError, InputError, OutputError
from speakup.media.pipes import RawFormat, pour, spool
from speakup.media.recording import probe
from speakup.media.repair import mended

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLAIN = ["--no-denoise", "--no-upsample", "--no-loudness"]
RATE = 16000
SOUND = np.asarray(np.rint(noise(1, RATE, RATE)[0] * 32767), "<i2")


def enhance(*words: str, given: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "speakup", "enhance", *words]
    return subprocess.run(command, input=given, capture_output=True, check=False, **options)


def wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SOUND, RATE, "PCM_16", format="WAV")
    return file.getvalue()


# --- raw samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize(
    ("kind", "code", "step"),
    [("s16", "i2", 2**-15), ("s32", "i4", 2**-31), ("f32", "f4", 0), ("f64", "f8", 0)],
)
def test_raw_samples_of_any_kind_read_as_they_were_meant(
    tmp_path: Path, kind: str, code: str, step: float, order: str
) -> None:
    waveform = noise(2, 1000, RATE)
    numbers = waveform.T / (step or 1)
    data = numbers.astype(("<" if order == "le" else ">") + code)
    path = tmp_path / "a"
    spool(io.BytesIO(data.tobytes()), path, RawFormat.parse(f"{RATE}:2:{kind}{order}"))
    assert (probe(path).sample_rate, probe(path).channels) == (RATE, 2)
    assert np.max(np.abs(read(path) - waveform)) <= max(step, 2**-24)


@pytest.mark.parametrize("order", ["le", "be"])
def test_raw_samples_of_24_bits(tmp_path: Path, order: str) -> None:
    values = [0, 1, -1, 2**23 - 1, -(2**23), 1234567]
    kind = "little" if order == "le" else "big"
    data = b"".join(value.to_bytes(3, kind, signed=True) for value in values)  # type: ignore[arg-type]
    spool(io.BytesIO(data), tmp_path / "a", RawFormat.parse(f"8000:1:s24{order}"))
    np.testing.assert_array_equal(read(tmp_path / "a")[0] * 2**23, values)


def test_raw_samples_of_8_bits(tmp_path: Path) -> None:
    spool(io.BytesIO(bytes([0, 128, 255])), tmp_path / "a", RawFormat.parse("8000:1:u8"))
    np.testing.assert_array_equal(read(tmp_path / "a")[0] * 128, [-128, 0, 127])
    spool(io.BytesIO(bytes([0, 128, 127])), tmp_path / "b", RawFormat.parse("8000:1:s8"))
    np.testing.assert_array_equal(read(tmp_path / "b")[0] * 128, [0, -128, 127])


@pytest.mark.parametrize(
    "text", ["", "16000", "16000:1", "16000:0:s16le", "16000:65:s16le", "0:1:s16le", "8000:1:s16"]
)
def test_a_raw_format_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 16000:1:s16le"):
        RawFormat.parse(text)


# --- headers written before the length was known --------------------------------------------------

NEVER = 0xFFFFFFFF
FMT = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)


def riff(size: int, data: int) -> bytes:
    head = struct.pack("<4sI4s", b"RIFF", size, b"WAVE")
    return head + FMT + struct.pack("<4sI", b"data", data) + SOUND.tobytes()


def rf64(size: int, data: int, samples: int, magic: bytes = b"RF64", old: int = NEVER) -> bytes:
    head = struct.pack("<4sI4s4sI", magic, NEVER, b"WAVE", b"ds64", 28)
    sizes = struct.pack("<QQQI", size % 2**64, data % 2**64, samples % 2**64, 0)
    return head + sizes + FMT + struct.pack("<4sI", b"data", old) + SOUND.tobytes()


def w64(size: int, data: int) -> bytes:
    tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    start = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<q", size)
    form = b"wave" + tail + b"fmt " + tail + struct.pack("<q", 40) + FMT[8:]
    return start + form + b"data" + tail + struct.pack("<q", data) + SOUND.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        *(riff(size, data) for size in (0, 36, NEVER) for data in (0, NEVER)),
        riff(0x7FFFFFFF, 0x7FFFFFDB),
        riff(0x7FFFF024, 0x7FFFF000),
        riff(0x80000024, 0x80000000),
        *(rf64(n, n, n) for n in (0, -1, 2**63 - 1)),
        rf64(-1, -1, 0, old=0),
        rf64(0, 0, 0, magic=b"BW64"),
        *(w64(size, data) for size, data in ((0, 24), (0, 0), (-1, -1), (2**63 - 1, 2**63 - 1))),
    ],
    ids=lambda data: data[:4].decode() + data[4:8].hex(),
)
def test_a_length_that_was_never_filled_in_is_the_files(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    notes: list[str] = []
    decoded = read(tmp_path / "a", warnings=notes)
    np.testing.assert_array_equal(decoded[0] * 32768, SOUND)
    assert notes == []
    assert probe(tmp_path / "a").seconds == 1.0


def test_an_unknown_length_beyond_4_gib_is_known_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(riff(NEVER, NEVER))
        try:
            file.truncate(44 + 5 * 2**30)  # a file with a hole, which takes no room
        except OSError:
            pytest.skip("no files of 5 GiB here")
    if path.stat().st_blocks * 512 > 2**30:
        pytest.skip("a disk without holes")
    assert probe(path).samples == 5 * 2**29


def with_a_hole(path: Path, content: bytes, size: int) -> None:
    path.write_bytes(content)
    try:
        os.truncate(path, size)
    except OSError:
        pytest.skip("no large files here")
    if path.stat().st_blocks * 512 > 2**28:
        pytest.skip("a disk without holes")


@pytest.mark.parametrize(
    "content",
    [
        riff(36 + 2 * RATE, 2 * RATE),
        riff(36 + 2 * RATE, 2 * RATE) + struct.pack("<4sI4s", b"note", 4, b"text"),
        rf64(36 + 2 * RATE, 2 * RATE, RATE),
    ],
    ids=["riff", "chunk-behind", "rf64"],
)
def test_zeros_behind_the_samples_of_a_wav_are_not_looked_through(
    tmp_path: Path, content: bytes
) -> None:
    # The zeros are as many as take an hour to walk over as chunks.
    with_a_hole(tmp_path / "a.wav", content, 5 * 2**30)
    assert probe(tmp_path / "a.wav").samples == RATE
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0] * 32768, SOUND)


def test_a_wav_with_zeros_instead_of_samples_is_refused_at_once(tmp_path: Path) -> None:
    with_a_hole(tmp_path / "a.wav", riff(0, 0)[:36], 5 * 2**30)
    with pytest.raises(InputError, match="holds no samples"):
        probe(tmp_path / "a.wav")


def caf(size: int) -> bytes:
    """Give CAF of the test's sound whose data states a size (Core Audio Format 1.0)."""
    form = struct.pack(">d4sIIIII", RATE, b"lpcm", 2, 2, 1, 1, 16)  # little endian
    start = struct.pack(">4sHH4sq", b"caff", 1, 0, b"desc", len(form)) + form
    return start + struct.pack(">4sqI", b"data", size, 0) + SOUND.tobytes()


@pytest.mark.parametrize("size", [0, -1, 2**40, 2**62, 2**63 - 1])
def test_caf_that_states_any_size_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], size: int
) -> None:
    (tmp_path / "a.caf").write_bytes(caf(size))
    np.testing.assert_array_equal(read(tmp_path / "a.caf")[0] * 32768, SOUND)
    assert probe(tmp_path / "a.caf").seconds == 1.0
    assert capfd.readouterr() == ("", "")


def test_zeros_behind_the_samples_of_caf_are_not_looked_through(tmp_path: Path) -> None:
    with_a_hole(tmp_path / "a.caf", caf(4 + 2 * RATE), 5 * 2**30)
    assert probe(tmp_path / "a.caf").samples == RATE
    np.testing.assert_array_equal(read(tmp_path / "a.caf")[0] * 32768, SOUND)


def test_caf_with_zeros_instead_of_samples_is_refused_at_once(tmp_path: Path) -> None:
    with_a_hole(tmp_path / "a.caf", caf(0)[:52], 5 * 2**30)
    with pytest.raises(InputError, match="holds no samples"):
        probe(tmp_path / "a.caf")


@pytest.mark.parametrize("name", ["a.flac", "cut.flac", "a.mp3"])
def test_of_zeros_behind_frames_only_a_few_are_read_as_sound(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.mp3":
        write_with_ffmpeg(path, "libmp3lame", noise(1, RATE, RATE), rate=RATE)
    else:
        soundfile.write(path, noise(1, RATE, RATE)[0], RATE)
    if name == "cut.flac":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    whole, alone = path.stat().st_size, read(path)
    os.truncate(path, whole + 2**24)
    with mended(path) or path.open("rb") as file:
        assert whole < file.seek(0, os.SEEK_END) <= whole + 2**16
    # What follows an MP3 makes FFmpeg doubt its header, which tells the encoder's padding.
    np.testing.assert_array_equal(read(path)[:, : alone.shape[1]], alone)
    assert read(path).shape[1] - alone.shape[1] < 1152
    # A frame may end in zeros of its own.
    os.truncate(path, whole + 2**15)
    assert mended(path) is None


# --- the library's two ends -----------------------------------------------------------------------


def test_nothing_on_standard_input_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="standard input: is empty: 0 bytes"):
        spool(io.BytesIO(), tmp_path / "a")
    with pytest.raises(InputError, match="standard input: is empty: 0 bytes"):
        spool(io.BytesIO(), tmp_path / "a", RawFormat(8000, 1, "u8"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_an_output_that_is_full_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    with full, pytest.raises(OutputError, match="standard output: the disk is full"):
        pour(tmp_path / "a", full)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of temporary files; nothing may stay in it."""
    folder = tmp_path / "spools"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_sound_goes_in_and_out_with_nothing_beside_it(spools: Path) -> None:
    done = enhance("-", "-o", "-", *PLAIN, "--sample-rate", "keep", given=wav())
    assert done.returncode == 0, done.stderr
    sound, rate = soundfile.read(io.BytesIO(done.stdout), dtype="int16")
    assert rate == RATE
    np.testing.assert_array_equal(sound, SOUND)
    assert struct.unpack("<I", done.stdout[4:8])[0] == len(done.stdout) - 8
    assert done.stderr.decode().startswith("- ")
    assert list(spools.iterdir()) == []


def test_raw_samples_go_in_and_a_file_comes_out(tmp_path: Path, spools: Path) -> None:
    target = tmp_path / "out.flac"
    raw = ["--raw", f"{RATE}:1:s16le", "--sample-rate", "keep"]
    done = enhance("-", "-o", str(target), *PLAIN, *raw, given=SOUND.tobytes())
    assert (done.returncode, done.stdout.decode()) == (0, f"{target}\n"), done.stderr
    np.testing.assert_array_equal(read(target)[0] * 32768, SOUND)
    assert list(spools.iterdir()) == []


def test_a_file_goes_in_and_another_format_comes_out(tmp_path: Path, spools: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    done = enhance(str(tmp_path / "a.wav"), "-o", "-", "-f", "flac", "-q", *PLAIN)
    assert (done.returncode, done.stderr, done.stdout[:4]) == (0, b"", b"fLaC")
    assert list(spools.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "spools"]


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        (b"", 3, "standard input: is empty: 0 bytes"),
        (b"no sound at all", 3, "standard input: is not audio"),
    ],
)
def test_what_is_no_sound_is_said_in_a_line(
    spools: Path, given: bytes, code: int, says: str
) -> None:
    done = enhance("-", *PLAIN, given=given)
    assert (done.returncode, done.stdout) == (code, b"")
    assert says in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert list(spools.iterdir()) == []


def test_all_is_poured_into_a_stream_that_takes_little_at_a_time(tmp_path: Path) -> None:
    class Narrow(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(data[:1000])

    content = bytes(range(256)) * 20
    (tmp_path / "a").write_bytes(content)
    stream = Narrow()
    pour(tmp_path / "a", stream)
    assert stream.getvalue() == content


def test_a_reader_that_has_had_enough_is_not_complained_of(tmp_path: Path, spools: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1, 20 * RATE, RATE).T, RATE)
    command = [sys.executable, "-m", "speakup", "enhance", str(tmp_path / "a.wav"), "-o", "-"]
    process = subprocess.Popen(
        [*command, "-q", *PLAIN], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 4
    assert list(spools.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
def test_a_terminal_is_not_waited_for() -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "speakup", "enhance", "-", "-o", "out.wav"]
    done = subprocess.run(command, stdin=theirs, capture_output=True, check=False)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert b"standard input is the terminal" in done.stderr


# --- the examples ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "programs", "source", "target"),
    [
        ("ffmpeg_to_sox.sh", ("ffmpeg", "sox"), "a.flac", "out.ogg"),
        ("microphone_format.sh", ("sox",), "a.flac", "out.wav"),
        ("stream_to_mp3.sh", ("ffmpeg",), "a.flac", "out.mp3"),
    ],
)
def test_the_example_scripts_work(
    tmp_path: Path, script: str, programs: tuple[str, ...], source: str, target: str
) -> None:
    if os.name == "nt" or not all(shutil.which(program) for program in programs):
        pytest.skip(f"needs {' and '.join(programs)}")
    waveform = noise(1, RATE, RATE)
    soundfile.write(tmp_path / source, waveform.T, RATE)
    program = tmp_path / "bin" / "speakup"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m speakup "$@"\n')
    program.chmod(0o755)
    where = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = [str(EXAMPLES / script), source, target, *PLAIN]
    done = subprocess.run(command, cwd=tmp_path, env=where, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert probe(tmp_path / target).seconds == pytest.approx(1.0, abs=0.1)


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes a stream")
def test_sound_for_a_closed_standard_output_is_not_lost_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav())
    words = [sys.executable, "-m", "speakup", "enhance", str(path), "-o", "-", *PLAIN]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words], stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == OutputError.exit_code
    assert "standard output: is closed" in done.stderr.decode()
