"""The best denoiser at hand, by the table of measured scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from speakup import Config
from speakup.errors import ModelError
from speakup.models import deepfilter as archives
from speakup.models import ranking
from speakup.models.catalogue import choose_models, find_card, load_model

OURS = "speakup-denoise-16k"
SETTLED = "deepfilternet3-settled"


def test_the_table_knows_no_denoiser_that_is_not_one() -> None:
    for name in ranking.ranked():
        for part in name.split("+"):
            card = find_card(part)
            assert card is not None and card.task == "denoise"


def test_every_denoiser_was_measured_on_the_same_recordings() -> None:
    measured = {
        name: {(row.kind, row.recordings) for row in ranking.rows() if row.denoiser == name}
        for name in ranking.ranked()
    }
    assert len(measured) > 1
    assert len({frozenset(kinds) for kinds in measured.values()}) == 1


def test_of_those_at_hand_the_one_with_the_highest_scores_is_best() -> None:
    first, *others = ranking.ranked()
    assert ranking.best_denoiser(lambda name: True) == first
    assert ranking.best_denoiser(lambda name: name in others) == others[0]
    assert ranking.best_denoiser(lambda name: False) is None


def test_the_order_is_that_of_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the kinds of damage alone, each alike however many recordings it has."""

    def row(name: str, kind: str, recordings: int, pesq: float) -> ranking.Row:
        return ranking.Row(name, kind, recordings, pesq, 0.0, 0.0, None, None, None)

    table = (
        *(row("a", "noise", 50, 2.0), row("a", "reverb", 1, 2.0), row("a", "clean", 9, 1.0)),
        *(row("b", "noise", 50, 2.1), row("b", "reverb", 1, 1.7), row("b", "clean", 9, 4.0)),
    )
    monkeypatch.setattr(ranking, "rows", lambda: table)
    assert ranking.ranked() == ["a", "b"]


def test_without_the_extra_the_bundled_one_is_best() -> None:
    for config in (Config(), Config(quality="fast"), Config(preset="fast")):
        chosen = choose_models(config)
        assert chosen.denoisers == chosen.narrow == (OURS,)


def test_with_the_extra_the_measured_best_is_chosen(deepfilter: None) -> None:
    chosen = choose_models(Config())
    assert "+".join(chosen.denoisers) == ranking.ranked()[0]
    assert chosen.narrow == (OURS,)
    assert choose_models(Config(quality="fast")).denoisers == (OURS,)
    assert choose_models(Config(preset="fast")).denoisers == (OURS,)


def test_what_is_named_is_taken_whatever_is_better(deepfilter: None) -> None:
    chosen = choose_models(Config(denoiser="deepfilternet3"))
    assert chosen.denoisers == chosen.narrow == ("deepfilternet3",)


def test_two_in_a_row_are_named_with_a_plus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_models(Config(denoiser="a+b")).denoisers == ("a", "b")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b").mkdir()
    assert choose_models(Config(denoiser="a+b")).denoisers == ("a+b",)


class TestDamage:
    @pytest.fixture
    def archive(self, deepfilter: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Give a copy of the archive that is taken for the package's."""
        card = find_card("deepfilternet3")
        assert card is not None
        copy = tmp_path / "_models" / Path(card.file).name
        copy.parent.mkdir()
        copy.write_bytes((card.folder / card.file).read_bytes())
        monkeypatch.setattr(archives, "find_archive", lambda file: copy)
        return copy

    def test_another_version_is_not_at_hand(self, archive: Path) -> None:
        archive.write_bytes(b"another")
        assert choose_models(Config()).denoisers == (OURS,)
        with pytest.raises(ModelError, match="bytes instead of"):
            load_model("deepfilternet3")

    def test_a_damaged_one_is_refused(self, archive: Path) -> None:
        content = bytearray(archive.read_bytes())
        content[1_000_000] ^= 1
        archive.write_bytes(content)
        with pytest.raises(ModelError, match="SHA-256"):
            load_model(SETTLED)
