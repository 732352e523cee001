from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from speakup.errors import ConfigError, InputError
from speakup.folders.journal import JOURNAL_FILE
from speakup.folders.plan import Plan, plan_jobs


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def pairs(plan: Plan) -> list[tuple[str, str]]:
    return [(job.source.as_posix(), job.target.as_posix()) for job in plan.jobs if job.target]


@pytest.mark.parametrize(
    ("source", "output", "format", "target"),
    [
        ("talk.wav", None, None, "talk_enhanced.wav"),
        ("talk.m4a", None, None, "talk_enhanced.wav"),
        ("a/talk.v2.mp3", None, "flac", "a/talk.v2_enhanced.flac"),
        ("talk", None, None, "talk_enhanced.wav"),
        ("talk.wav", "out.flac", None, "out.flac"),
        ("talk.wav", "new/out.flac", None, "new/out.flac"),
        ("talk.mp3", "masters/", None, "masters/talk.wav"),
        ("talk.mp3", "masters", "opus", "masters/talk.opus"),
        ("talk.wav", "v1.2/", None, "v1.2/talk.wav"),
    ],
)
def test_one_file_is_named(
    source: str, output: str | None, format: str | None, target: str
) -> None:
    assert pairs(plan_jobs([source], output, format=format)) == [(source, target)]


def test_an_existing_folder_is_one_whatever_its_name() -> None:
    Path("takes.wav").mkdir()
    assert pairs(plan_jobs(["talk.wav"], "takes.wav")) == [("talk.wav", "takes.wav/talk.wav")]


def test_only_a_named_file_needs_its_folder() -> None:
    assert plan_jobs(["a.wav"], "new/b.wav").jobs[0].folder is None
    assert plan_jobs(["a.wav"], "new/").jobs[0].folder == Path("new")


def test_several_files_go_into_a_folder_or_stay_where_they_are() -> None:
    assert pairs(plan_jobs(["a.wav", "b/c.mp3"])) == [
        ("a.wav", "a_enhanced.wav"),
        ("b/c.mp3", "b/c_enhanced.wav"),
    ]
    assert pairs(plan_jobs(["a.wav", "b/c.mp3"], "out")) == [
        ("a.wav", "out/a.wav"),
        ("b/c.mp3", "out/c.wav"),
    ]


def test_one_name_cannot_hold_several() -> None:
    touch("rec/a.wav")
    with pytest.raises(ConfigError, match="2 inputs"):
        plan_jobs(["a.wav", "b.wav"], "out.wav")
    with pytest.raises(ConfigError, match="a folder"):
        plan_jobs(["rec"], "out.wav")


def test_outputs_that_would_meet_are_refused() -> None:
    touch("x/a.wav")
    with pytest.raises(ConfigError, match=r"twice, from x/a\.wav and y/a\.wav"):
        plan_jobs(["x/a.wav", "y/a.wav"], "out/")
    with pytest.raises(ConfigError, match=r"x/a\.wav: is an input itself"):
        plan_jobs(["y/a.mp3", "x/"], "x/")
    with pytest.raises(ConfigError, match="format is 'xyz'"):
        plan_jobs(["a.wav"], format="xyz")


def test_an_empty_name_does_not_mean_everything_here() -> None:
    with pytest.raises(ConfigError, match="empty"):
        plan_jobs([""])


def test_pipes_are_for_one_recording_alone() -> None:
    with pytest.raises(ConfigError, match="standard input"):
        plan_jobs(["-"])
    with pytest.raises(ConfigError, match="standard output"):
        plan_jobs(["a.wav"], "-")


def test_a_folder_is_mirrored_without_what_is_no_recording() -> None:
    touch("rec/b.MP3", "rec/sub/a.wav", "rec/.hidden.wav", "rec/.git/x.wav", "rec/notes.txt")
    assert pairs(plan_jobs(["rec"])) == [
        ("rec/b.MP3", "rec_enhanced/b.wav"),
        ("rec/sub/a.wav", "rec_enhanced/sub/a.wav"),
    ]
    assert pairs(plan_jobs(["rec/"], "out", format="mp3"))[1] == ("rec/sub/a.wav", "out/sub/a.mp3")
    assert pairs(plan_jobs(["rec"], recursive=False)) == [("rec/b.MP3", "rec_enhanced/b.wav")]


def test_the_present_folder_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("rec/a.wav")
    monkeypatch.chdir("rec")
    beside = (tmp_path / "rec_enhanced" / "a.wav").as_posix()
    assert pairs(plan_jobs(["."])) == [("a.wav", beside)]
    assert pairs(plan_jobs([".."], recursive=True))[0][0] == "../rec/a.wav"


def test_patterns_choose_from_a_folder() -> None:
    touch("rec/a.wav", "rec/b.mp3", "rec/old/c.wav")
    sources = [source for source, _ in pairs(plan_jobs(["rec"], include=["*.wav"]))]
    assert sources == ["rec/a.wav", "rec/old/c.wav"]
    sources = [source for source, _ in pairs(plan_jobs(["rec"], exclude=["old/*", "*.mp3"]))]
    assert sources == ["rec/a.wav"]


def test_quoted_globs_are_expanded() -> None:
    touch("a.wav", "b.wav", "[c].wav")
    sources = [source for source, _ in pairs(plan_jobs(["[ab].wav", "a.wav", "[c].wav"]))]
    assert sources == ["a.wav", "b.wav", "[c].wav"]
    assert pairs(plan_jobs(["no*.wav"])) == [("no*.wav", "no*_enhanced.wav")]


def test_earlier_outputs_are_never_inputs() -> None:
    touch("rec/a.m4a", "rec/a_enhanced.wav", "rec/b_enhanced.wav", "rec/sub/c.wav")
    touch("rec/sub_enhanced/c.wav", "rec/out/a.wav")
    plan = plan_jobs(["rec"], "rec/out")
    assert [source for source, _ in pairs(plan)] == [
        "rec/a.m4a",
        "rec/b_enhanced.wav",  # of nothing that is here: somebody's recording
        "rec/sub/c.wav",
    ]
    assert plan.left_out == ((Path("rec/a_enhanced.wav"), "an earlier run made it"),)

    plan = plan_jobs(["rec/a.m4a", "rec/a_enhanced.wav"])  # as a shell's *.* gives them
    assert pairs(plan) == [("rec/a.m4a", "rec/a_enhanced.wav")]
    assert plan.left_out == ((Path("rec/a_enhanced.wav"), "an earlier run made it"),)
    assert len(plan_jobs(["rec/a_enhanced.wav"]).jobs) == 1  # said by name, and alone


def test_a_folder_without_recordings_is_a_job_that_fails() -> None:
    touch("rec/notes.txt")
    (job,) = plan_jobs(["rec"]).jobs
    assert job.target is None
    assert isinstance(job.error, InputError)
    assert "holds no recordings" in str(job.error)


def journal(folder: str, *outputs: str) -> Path:
    """Write what a run leaves in a folder of outputs."""
    lines = []
    for output in outputs:
        place = Path(folder, output)
        state = place.stat() if place.exists() else None
        lines.append(
            {
                "event": "file",
                "output": output,
                "output_size": state.st_size if state else 1,
                "output_mtime_ns": state.st_mtime_ns if state else 1,
                **{"input": "a", "input_size": 1, "input_mtime_ns": 1},
                **{"settings": "", "models": [], "overwrite": False},
            }
        )
    made = Path(folder, JOURNAL_FILE)
    made.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made


def test_recordings_that_would_share_an_output_keep_their_extensions() -> None:
    touch("rec/a.wav", "rec/a.mp3", "rec/b.m4a", "rec/b.ogg", "rec/c.mp3")
    expected = [
        ("rec/a.mp3", "rec_enhanced/a.mp3.wav"),
        ("rec/a.wav", "rec_enhanced/a.wav"),
        ("rec/b.m4a", "rec_enhanced/b.m4a.wav"),
        ("rec/b.ogg", "rec_enhanced/b.ogg.wav"),
        ("rec/c.mp3", "rec_enhanced/c.wav"),
    ]
    assert pairs(plan_jobs(["rec"])) == expected
    chosen = plan_jobs(["rec"], include=["*.mp3"])  # what is chosen changes no name
    assert pairs(chosen) == [expected[0], expected[4]]
    assert pairs(plan_jobs(["rec/a.wav", "rec/a.mp3"])) == [
        ("rec/a.wav", "rec/a_enhanced.wav"),
        ("rec/a.mp3", "rec/a.mp3_enhanced.wav"),
    ]
    touch("rec/a_enhanced.wav", "rec/a.mp3_enhanced.wav")
    assert pairs(plan_jobs(["rec"])) == expected


def test_outputs_of_any_earlier_run_below_are_left_out() -> None:
    touch("rec/a.m4a", "rec/first/a.wav", "rec/first/mine.wav", "rec/b.mp3", "rec/b.wav")
    journal("rec/first", "a.wav", "gone.wav")
    journal("rec", "b.wav")
    plan = plan_jobs(["rec"], "rec/second")
    assert [source for source, _ in pairs(plan)] == [
        "rec/a.m4a",
        "rec/b.mp3",
        "rec/first/mine.wav",
    ]
    assert [path.as_posix() for path, _ in plan.left_out] == ["rec/b.wav", "rec/first/a.wav"]
    assert pairs(plan_jobs(["rec/b.mp3", "rec/b.wav"], "rec/")) == [("rec/b.mp3", "rec/b.wav")]


def test_a_folder_within_earlier_outputs_holds_nothing_new() -> None:
    touch("out/deep/a.wav", "out/deep/b.wav")
    journal("out", "deep/a.wav")
    assert [source for source, _ in pairs(plan_jobs(["out/deep"]))] == ["out/deep/b.wav"]


def left_out(*inputs: str, into: str | None = None) -> list[str]:
    return [path.as_posix() for path, _ in plan_jobs(inputs, into).left_out]


@pytest.mark.parametrize("where", [".", "rec", "rec/sub"])
def test_a_journal_of_anybodys_keeps_no_recording_from_being_done(where: str) -> None:
    """Only what is still as the user's own journal says counts, outside the run's own folder."""
    touch("rec/sub/a.wav", "rec/sub/b.wav")
    here = Path(os.path.relpath("rec/sub", where))
    book = journal(where, *(str(here / name) for name in ("a.wav", "b.wav")))
    assert left_out("rec") == ["rec/sub/a.wav", "rec/sub/b.wav"]
    os.utime("rec/sub/b.wav", ns=(1, 1))
    assert left_out("rec") == ["rec/sub/a.wav"]
    with book.open("ab") as file:
        file.truncate(100_000_001)
    assert left_out("rec") == []
    journal(where, str(here / "a.wav"))
    if os.name == "posix" and os.getuid() == 0:
        os.chown(book, 1234, 1234)
        assert left_out("rec") == []


def test_no_link_leads_in_a_circle_or_to_the_same_file_again() -> None:
    touch("rec/sub/b.wav", "elsewhere/c.wav", "elsewhere/d.wav")
    links = {
        "rec/a.wav": "sub/b.wav",
        "rec/c.wav": "../elsewhere/c.wav",
        "rec/sub/loop": "..",
        "rec/sub/far": "../../elsewhere",
        "rec/gone.wav": "nowhere.wav",
    }
    for name, target in links.items():
        Path(name).symlink_to(target)
    plan = plan_jobs(["rec"])
    assert [source for source, _ in pairs(plan)] == ["rec/c.wav", "rec/gone.wav", "rec/sub/b.wav"]
    assert {path.as_posix(): reason for path, reason in plan.left_out} == {
        "rec/sub/far": "links to folders are not followed",
        "rec/sub/loop": "links to folders are not followed",
        "rec/a.wav": "it is the same file as rec/sub/b.wav",
    }
    Path("by-another-name").symlink_to("rec")  # what is named, is meant
    assert len(plan_jobs(["by-another-name"]).jobs) == 3
    assert len(plan_jobs(["rec", "by-another-name"]).jobs) == 3
    assert len(plan_jobs(["rec/sub/b.wav", "rec"], "out").jobs) == 3


def test_names_of_any_bytes_are_planned() -> None:
    names = [os.fsdecode(b"caf\xe9.mp3"), "two\nlines.mp3", " .mp3", "-o.mp3", "\U0001f399" * 62]
    touch(*(f"rec/{name}.wav" for name in names))
    plan = plan_jobs(["rec"])
    assert sorted(job.source.name for job in plan.jobs) == sorted(f"{name}.wav" for name in names)
    beside = plan_jobs([f"rec/{names[-1]}.wav"]).jobs[0].target
    assert beside is not None
    assert len(os.fsencode(beside.name)) <= 255
    touch(str(beside))
    assert len(plan_jobs(["rec"]).jobs) == len(names)


def test_a_recording_named_by_itself_and_in_its_folder_is_said_to_be_named_twice() -> None:
    touch("rec/a.wav", "rec/sub/b.wav")
    plan = plan_jobs(["rec", "rec/", "rec/sub"])
    assert [source for source, _ in pairs(plan)] == ["rec/a.wav", "rec/sub/b.wav"]
    assert plan.left_out == ((Path("rec/sub/b.wav"), "it is named twice"),)
