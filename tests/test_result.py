"""What scripts read of a result."""

from __future__ import annotations

import json
import math

from speakup.errors import OutputError
from speakup.result import Result, StageReport, size


def test_a_result_is_json_with_the_fields_that_scripts_rely_on() -> None:
    result = Result(
        "in.wav",
        "out.wav",
        "ok",
        seconds=1.23456,
        channels=2,
        stages=(StageReport("denoise", "a-model", "1", 0.5),),
        warnings=("clipped",),
    )
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(values) == [
        "event",
        "input",
        "output",
        "status",
        "seconds",
        "elapsed",
        "speed",
        "channels",
        "sample_rate_in",
        "sample_rate_out",
        "bandwidth_hz",
        "lufs_in",
        "lufs_out",
        "true_peak_dbtp",
        "gain_db",
        "stages",
        "warnings",
        "error",
    ]
    assert values["event"] == "file"
    assert values["seconds"] == 1.235
    assert values["stages"] == [
        {"name": "denoise", "model": "a-model", "revision": "1", "seconds": 0.5, "did": {}}
    ]
    assert values["warnings"] == ["clipped"]
    assert values["error"] is None


def test_figures_that_do_not_exist_are_null() -> None:
    result = Result("a", None, "failed", lufs_in=-math.inf, true_peak_dbtp=math.nan)
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    for name in ("lufs_in", "true_peak_dbtp", "output", "seconds", "channels", "gain_db"):
        assert values[name] is None, name
    assert Result("a", "b", "ok").to_json()["gain_db"] == 0.0, "known to be none"


def test_an_error_stays_what_it_is_until_scripts_read_it() -> None:
    error = OutputError("the disk is full", "b.wav", "Free some space")
    result = Result("a.wav", None, "failed", error=error)
    assert result.error is error
    values = json.loads(json.dumps(result.to_json()))
    message = "b.wav: the disk is full. Free some space"
    assert values["error"] == {"type": "OutputError", "message": message}


def test_sizes_are_told_in_units_that_show_them() -> None:
    told = [0, 1, 999, 1000, 3210, 999_600, 1.5e6, 4.066e9, 2e12]
    words = "0 bytes, 1 bytes, 999 bytes, 1 kB, 3.21 kB, 1 MB, 1.5 MB, 4.07 GB, 2 TB"
    assert ", ".join(map(size, told)) == words
