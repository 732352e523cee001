"""`speakup models` on a terminal: what one has to type is there in full, however narrow it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hub import environment, run

from speakup.models.catalogue import list_models


@pytest.mark.parametrize(("columns", "seen"), [(150, "revision"), (80, "rate"), (60, "task")])
def test_the_list_fits_and_cuts_no_name(columns: int, seen: str, tmp_path: Path) -> None:
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm"}
    done = run(["models", "list"], environment(tmp_path, "http://127.0.0.1:9", **terminal))
    assert done.code == 0, done.err
    heading, *lines = re.sub(r"\x1b\[[0-9;]*m", "", done.out).splitlines()
    assert {"model", seen, "here"} <= set(heading.split())
    assert max(map(len, [heading, *lines])) <= columns
    assert [line.split()[0] for line in lines] == [card.name for card in list_models()]


def test_the_narrowest_list_is_of_names(tmp_path: Path) -> None:
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "24", "TERM": "xterm"}
    done = run(["models", "list"], environment(tmp_path, "http://127.0.0.1:9", **terminal))
    names = re.sub(r"\x1b\[[0-9;]*m", "", done.out).split()[1:]
    assert names == [card.name for card in list_models()]
