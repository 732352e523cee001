"""Sound keeps its place in time, whatever the file leaves out, in sound files as in videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av_files import write_with_ffmpeg
from sounds import RATE, lag, noise, read

from speakup.media.recording import probe

HZ = 48000


def write_late(path: Path, codec: str, start: float) -> np.ndarray:
    """Write three seconds that begin at a time."""
    waveform = noise(1, 3 * HZ, HZ)
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=HZ)
        sound.layout = "mono"
        frame = av.AudioFrame.from_ndarray(waveform, format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = HZ, Fraction(1, HZ), round(start * HZ)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return waveform


def write_with_gap(
    path: Path, codec: str, *, damage: bool = False, video: bool = False
) -> np.ndarray:
    """Write six seconds of which the packets from 2 to 4 s are left out, or damaged."""
    waveform = noise(1, 6 * HZ, HZ)
    whole = path.with_name(f"whole{path.suffix}")
    write_with_ffmpeg(whole, codec, waveform, rate=HZ, video=video)
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size == 0:
                continue
            gone = packet.stream.type == "audio" and 2.0 <= packet.pts * packet.time_base < 4.0
            if gone and not damage:
                continue
            if gone:
                broken = av.Packet(b"\xff" * packet.size)
                broken.pts, broken.dts = packet.pts, packet.dts
                broken.duration, broken.time_base = packet.duration, packet.time_base
                broken.stream = streams[packet.stream.index]
                target.mux(broken)
                continue
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    return waveform


@pytest.mark.parametrize(
    ("name", "codec", "video"),
    [
        ("a.mka", "libopus", False),
        ("a.mka", "flac", False),
        ("a.webm", "libopus", False),
        ("a.m4a", "aac", False),
        ("a.mkv", "aac", True),
        ("a.mp4", "aac", True),
    ],
)
def test_what_a_muted_participant_leaves_out_is_silence(
    tmp_path: Path, name: str, codec: str, video: bool
) -> None:
    waveform = write_with_gap(tmp_path / name, codec, video=video)
    warnings: list[str] = []
    decoded = read(tmp_path / name, warnings=warnings)
    assert decoded.shape[1] == pytest.approx(6 * HZ, abs=HZ // 50)
    assert lag(decoded[:, 5 * HZ :], waveform[:, 5 * HZ :]) == pytest.approx(0, abs=HZ // 500)
    assert lag(decoded[:, : 2 * HZ], waveform[:, : 2 * HZ]) == 0
    assert not decoded[:, round(2.1 * HZ) : round(3.9 * HZ)].any()
    assert [w for w in warnings if w.startswith("gaps: ")] and len(warnings) == 1, warnings


def test_damaged_packets_leave_their_place_silent(tmp_path: Path) -> None:
    waveform = write_with_gap(tmp_path / "a.m4a", "aac", damage=True)
    warnings: list[str] = []
    decoded = read(tmp_path / "a.m4a", warnings=warnings)
    assert decoded.shape[1] == pytest.approx(6 * HZ, abs=HZ // 50)
    assert lag(decoded[:, 5 * HZ :], waveform[:, 5 * HZ :]) == 0
    assert any(warning.startswith("damaged: ") for warning in warnings)


@pytest.mark.parametrize("pause", [b"\x7c", b"\x44" + bytes(5)])
def test_pauses_that_a_telephone_does_not_send_are_silence(tmp_path: Path, pause: bytes) -> None:
    """AMR of 12.2 kbit/s with frames of no data, or of comfort noise (RFC 4867, section 5)."""
    speech = b"\x3c" + np.random.default_rng(1).bytes(31)
    frames = speech * 50 + pause * 75 + speech * 50 + pause * 25
    (tmp_path / "a.amr").write_bytes(b"#!AMR\n" + frames)
    warnings: list[str] = []
    decoded = read(tmp_path / "a.amr", warnings=warnings)
    assert decoded.shape == (1, 4 * 8000)
    assert not decoded[0, 8000:20000].any() and decoded[0, 20160:27840].any()
    assert warnings == ["gaps: 2.00 s that are not in the file are silence"]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mka", "flac"), ("a.mka", "libopus"), ("a.webm", "libopus")]
)
def test_a_track_that_begins_late_keeps_its_beginning(
    tmp_path: Path, name: str, codec: str
) -> None:
    waveform = write_late(tmp_path / name, codec, 2.5)
    warnings: list[str] = []
    decoded = read(tmp_path / name, warnings=warnings)
    assert decoded.shape[1] == pytest.approx(5.5 * HZ, abs=HZ // 500)
    assert not decoded[:, : round(2.49 * HZ)].any()
    assert lag(decoded, np.pad(waveform, ((0, 0), (5 * HZ // 2, 0)))) == pytest.approx(0, abs=96)
    assert warnings == ["the sound begins 2.50 s after the file: until then is silence"]


def test_a_clock_that_begins_anywhere_adds_no_hours(tmp_path: Path) -> None:
    write_late(tmp_path / "a.mka", "flac", 5000.0)
    warnings: list[str] = []
    assert read(tmp_path / "a.mka", warnings=warnings).shape == (1, 3 * HZ)
    assert warnings == ["gaps: 1.4 h that the times skip were not filled"]


def test_one_time_that_jumps_ahead_and_back_is_no_gap(tmp_path: Path) -> None:
    write_late(tmp_path / "a.mka", "flac", 0.0)
    content = bytearray((tmp_path / "a.mka").read_bytes())
    cluster = content.index(b"\x1f\x43\xb6\x75")
    block = content.index(b"\xa3", content.index(b"\xa3", cluster + 20) + 200)
    while content[block : block + 1] != b"\xa3" or content[block + 3] != 0x81:
        block = content.index(b"\xa3", block + 1)
    content[block + 4 : block + 6] = (30_000).to_bytes(2, "big")  # milliseconds in the cluster
    (tmp_path / "a.mka").write_bytes(content)
    assert read(tmp_path / "a.mka").shape == (1, 3 * HZ)


# --- no false alarms, and true ones ---------------------------------------------------------------


def test_a_video_that_is_cut_off_says_so(tmp_path: Path) -> None:
    write_with_ffmpeg(tmp_path / "a.mkv", "flac", noise(1, 12 * HZ, HZ), rate=HZ, video=True)
    whole = (tmp_path / "a.mkv").read_bytes()
    warnings: list[str] = []
    read(tmp_path / "a.mkv", warnings=warnings)
    assert warnings == []
    (tmp_path / "a.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    read(tmp_path / "a.mkv", warnings=warnings)
    assert len(warnings) == 1 and warnings[0].startswith("cut off or damaged: 7")
    assert "of 12.0" in warnings[0]


def test_joined_mp3s_are_read_to_the_end_without_an_alarm(tmp_path: Path) -> None:
    for name, seconds in (("1.mp3", 2), ("2.mp3", 4)):
        write_with_ffmpeg(tmp_path / name, "libmp3lame", noise(1, seconds * RATE))
    for order in (("1.mp3", "2.mp3"), ("2.mp3", "1.mp3")):
        joined = b"".join((tmp_path / name).read_bytes() for name in order)
        (tmp_path / "a.mp3").write_bytes(joined)
        warnings: list[str] = []
        decoded = read(tmp_path / "a.mp3", warnings=warnings)
        assert decoded.shape[1] == pytest.approx(6 * RATE, abs=RATE // 10)
        assert warnings == []


def test_an_mp3_whose_header_states_no_frames_is_not_cut_off(tmp_path: Path) -> None:
    write_with_ffmpeg(tmp_path / "a.mp3", "libmp3lame", noise(1, 3 * RATE))
    content = bytearray((tmp_path / "a.mp3").read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info"))
    content[at + 8 : at + 12] = bytes(4)
    (tmp_path / "a.mp3").write_bytes(content + bytes(40_000))
    warnings: list[str] = []
    assert read(tmp_path / "a.mp3", warnings=warnings).shape[1] == pytest.approx(3 * RATE, abs=3000)
    assert warnings == []
    assert probe(tmp_path / "a.mp3").sample_rate == RATE


def test_a_sound_file_of_a_video_says_what_was_before_the_sound(tmp_path: Path) -> None:
    from speakup.config import Config
    from speakup.pipeline import Pipeline

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("flac", rate=HZ)
        sound.layout = "mono"
        for number in range(50):
            image = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
            image.pts = number
            container.mux(picture.encode(image))
        frame = av.AudioFrame.from_ndarray(noise(1, HZ, HZ), format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = HZ, Fraction(1, HZ), HZ
        container.mux(sound.encode(frame))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))
    chain = Pipeline(Config(denoise=False, upsample="off"))
    result = chain.run(tmp_path / "a.mkv", tmp_path / "a.wav")
    assert "left out: 1.00 s of the pictures before the sound begins" in result.warnings
    assert not chain.run(tmp_path / "a.mkv", tmp_path / "b.mkv").warnings


def test_where_the_first_track_cannot_be_decoded_the_others_are(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mka"), "w") as container:
        tracks = [container.add_stream("flac", rate=HZ) for _ in range(2)]
        for number, track in enumerate(tracks):
            track.layout = "stereo" if number == 0 else "mono"
        for number, track in enumerate(tracks):
            waveform = noise(2 - number, HZ, HZ)
            flat = np.ascontiguousarray(waveform.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(flat, format="flt", layout=track.layout.name)
            frame.sample_rate, frame.time_base, frame.pts = HZ, Fraction(1, HZ), 0
            for packet in [*track.encode(frame), *track.encode(None)]:
                if number == 0:
                    broken = av.Packet(bytes(packet.size))
                    broken.pts, broken.dts, broken.time_base = (
                        packet.pts,
                        packet.dts,
                        packet.time_base,
                    )
                    broken.stream = track
                    packet = broken
                container.mux(packet)
    info = probe(tmp_path / "a.mka")
    assert (info.number, info.channels, info.tracks) == (2, 1, 2)
    assert read(tmp_path / "a.mka").shape == (1, HZ)
