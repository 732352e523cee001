"""What settings take, and how they are described."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speakup.config import DELIVERIES, FORMATS, Config
from speakup.errors import ConfigError
from speakup.measure.delivery import resolve_target
from speakup.media.formats import resolve_format

NAMES = [field.name for field in dataclasses.fields(Config)]
ODD: list[Any] = [math.nan, math.inf, -math.inf, -1, -0.5, 2.5, 1e9, 10**400]
ODD += ["", "x", b"auto", [], {}, object()]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_setting_is_given_it_takes_or_says_what_it_wants(name: str) -> None:
    optional = Config.__dataclass_fields__[name].default is None
    refused = 0
    for value in [*ODD, None, True, 1]:
        try:
            made = Config(**{name: value})
        except ConfigError as error:
            refused += 1
            assert f"`{name}` is {value!r}" in str(error)
            assert error.remedy is not None and error.remedy.startswith(("Give", "Choose"))
        else:
            assert getattr(made, name) is value
            assert value is not None or optional
    assert refused >= 10


def test_ranges_are_those_that_are_said() -> None:
    for good in (0, 1, 0.5, np.float32(0.5)):
        Config(strength=good)
    for rate in (8_000, 192_000, np.int64(48_000)):
        Config(sample_rate=rate)
    for bad in (7_999, 192_001, 44_100.0, "44100"):
        with pytest.raises(ConfigError, match="Give 8000 to 192000 Hz, or keep"):
            Config(sample_rate=bad)  # type: ignore[arg-type]
    for text in (*DELIVERIES, "off", "-16", " EBU ", "\N{MINUS SIGN}18.5"):
        resolve_target(Config(loudness=text).loudness, None)
    for text in ("loud", "3", "-61", "nan", ""):
        with pytest.raises(ConfigError, match="a number from -60 to 0"):
            Config(loudness=text)


def test_every_format_and_delivery_that_is_named_is_there() -> None:
    for name in FORMATS:
        given = {"bit_depth": None, "bitrate": None, "sample_rate": 48_000, "channels": 1}
        assert resolve_format(Path("a"), format=name, **given).name == name
    targets = [resolve_target(name, None) for name in DELIVERIES]
    assert [target.name for target in targets if target is not None] == list(DELIVERIES)


def test_every_setting_is_described_in_the_help() -> None:
    text = inspect.getdoc(Config) or ""
    for field in dataclasses.fields(Config):
        assert f"    {field.name}: {field.metadata['help'][:20]}" in text
    assert "Give a number from 0 to 1 (default 1.0)." in " ".join(text.split())
