"""The tables of scores on all pages are those of docs/scores.json."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from speakup.judge.scores import INPUT, CaseScores, Evaluation

TOOL = Path(__file__).parents[1] / "tools" / "tables.py"


@pytest.fixture
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_show_what_the_file_of_scores_holds(tables: ModuleType) -> None:
    assert tables.main(["--check"]) == 0
    for page in tables.PAGES:
        text = page.read_text("utf-8")
        assert "<!-- table: " in text, page
        number = text.index("→", text.index("<!-- table: ")) + 2
        wrong = text[:number] + ("8" if text[number] != "8" else "7") + text[number + 1 :]
        assert tables.filled(wrong) == text, f"a digit changed in {page.name} is put right"


def test_an_evaluation_is_taken_over(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, page = tmp_path / "scores.json", tmp_path / "page"
    scores.write_text('{"chain": {}}')
    page.write_text("Before.\n\n<!-- table: chain pesq lsd -->\n| old |\n\nAfter.\n")
    monkeypatch.setattr(tables, "SCORES", scores)
    monkeypatch.setattr(tables, "PAGES", (page,))
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    cases = tuple(
        CaseScores(
            f"{number}",
            {"kind": "noise"},
            {
                INPUT: {"pesq": 1.0 + number, "lsd": 2.0},
                "speakup": {"pesq": 2.0 + number, "lsd": 1.234},
            },
        )
        for number in range(2)
    )
    found = tmp_path / "found.json"
    found.write_text(json.dumps(Evaluation(cases).to_json()))
    assert tables.main(["--take", "chain", str(found)]) == 0
    assert page.read_text() == (
        "Before.\n\n<!-- table: chain pesq lsd -->\n| kind | n | PESQ | LSD |\n"
        "|---|---|---|---|\n| noise | 2 | 1.50 → 2.50 | 2.00 → 1.23 |\n\nAfter.\n"
    )
    assert tables.main(["--check"]) == 0
    page.write_text(page.read_text().replace("2.50", "2.60"))
    assert tables.main(["--check"]) == 1
