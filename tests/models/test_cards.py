"""What a model's folder says of itself: licences in every form that YAML has, configs that harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nets import save_model, small_mixer

from speakup.errors import ModelError
from speakup.models.cards import forbids_commerce, licence_of, read_config

CC = "cc-by-nc-4.0"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "a-model", small_mixer())


def licence(folder: Path, card: bytes, **config: Any) -> str:
    (folder / "README.md").write_bytes(card)
    return licence_of(folder, config)


@pytest.mark.parametrize(
    "card",
    [
        b"---\nlicense: cc-by-nc-4.0\n---\n",
        b"---\nlicense: cc-by-nc-4.0\n---",
        b"---\r\nlicense: cc-by-nc-4.0\r\n---\r\nText",
        b"\xef\xbb\xbf---\nlicense: cc-by-nc-4.0\n---\n",
        b"\n\n---\nlicense: cc-by-nc-4.0\n---\n",
        b"---   \nlicense: cc-by-nc-4.0\n---   \n",
        b"---\n\"license\": 'cc-by-nc-4.0'\n---\n",
        b"---\n'license' : \"cc-by-nc-4.0\"\n---\n",
        b"---\nlicense : cc-by-nc-4.0 # a comment\n---\n",
        b"---\nlicense:\n- mit\n- cc-by-nc-4.0\n---\n",
        b"---\nlicense: [mit, cc-by-nc-4.0]\n---\n",
        b"---\nlicense:\n  cc-by-nc-4.0\n---\n",
        b"---\nlicense: >-\n  cc-by-nc-4.0\n---\n",
        b"---\n? license\n: cc-by-nc-4.0\n---\n",
        b"---\n{tags: [a], license: cc-by-nc-4.0}\n---\n",
        b"---\nlicense: &a cc-by-nc-4.0\ntags: [*a]\n---\n",
        b"---\nlicense: cc-by-nc-4.0\nlicense: mit\n---\n",
        b"---\nlicense: mit\nlicense: cc-by-nc-4.0\n---\n",
        b"---\nlicense: other\nlicense_name: cc-by-nc-4.0\n---\n",
        b"---\nLicense: !!str cc-by-nc-4.0\n---\n",
    ],
)
def test_a_licence_is_read_in_every_form(card: bytes, tmp_path: Path) -> None:
    assert licence(tmp_path, card, licence="MIT") == CC


@pytest.mark.parametrize("config", [{"license": CC}, {"licence": ["MIT", CC]}])
def test_the_stricter_of_config_and_card_counts(config: dict[str, Any], tmp_path: Path) -> None:
    assert licence(tmp_path, b"---\nlicense: mit\n---\n", **config) == CC


@pytest.mark.parametrize(
    "card",
    [
        b"---\nlicense: mit\n",
        b"---\nlicense: [mit\n---\n",
        b"---\nlicense: {name: cc-by-nc-4.0}\n---\n",
        b"---\nlicense: [[cc-by-nc-4.0]]\n---\n",
        b"---\n<<: {license: cc-by-nc-4.0}\n---\n",
        b"---\n\tlicense: mit\n---\n",
        b"---\ntags: " + b"[" * 5_000 + b"\n---\n",
        b"---\nlicense: mit\n" + b"#\n" * 100_000 + b"---\n",
    ],
)
def test_what_cannot_be_read_may_forbid_anything(card: bytes, tmp_path: Path) -> None:
    assert forbids_commerce(licence(tmp_path, card, licence="MIT"))


@pytest.mark.parametrize("card", [b"", b"# Title\nlicense: cc-by-nc-4.0\n", b"---\n---\n", b"\xff"])
def test_a_card_without_front_matter_says_nothing(card: bytes, tmp_path: Path) -> None:
    assert licence(tmp_path, card, licence="MIT") == "MIT"
    assert licence(tmp_path, card) == "unstated"


@pytest.mark.parametrize(
    "card", [b"---" + b"\n" * 3_000_000, b"\n" * 3_000_000, b"---\n" + b" \n" * 1_000_000]
)
def test_a_card_of_blank_lines_is_read_at_once(card: bytes, tmp_path: Path) -> None:
    """In time that grows with the card's length alone, or this test does not end."""
    assert licence(tmp_path, card, licence="MIT") in ("MIT", "unreadable")


@pytest.mark.parametrize(
    ("name", "forbids"),
    [
        ("MIT", False),
        ("Apache-2.0", False),
        ("NCSA", False),
        ("licence", False),
        ("CC-BY-NC-SA-4.0", True),
        ("cc by nc", True),
        ("cc-by-nc4.0", True),
        ("coqui-non-commercial", True),
        ("Non Commercial", True),
        ("noncommercial-research", True),
    ],
)
def test_what_forbids_commerce_is_told_by_its_name(name: str, forbids: bool) -> None:
    assert forbids_commerce(name) is forbids


def test_a_config_begins_with_a_byte_order_mark(model: Path) -> None:
    config = model / "config.json"
    plain = read_config(model)
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    assert read_config(model) == plain


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"hyperparameters":' * 100_000,
        b'{"name":"' + b"x" * 10_000_000 + b'"}',
        b'{"sample_rate":' + b"9" * 50_000 + b"}",
        b"\xff\xfe\x00",
    ],
)
def test_a_config_that_harms_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("number", [10**6, -(10**9), 1e300, float("nan"), float("inf")])
def test_numbers_that_no_network_has_are_refused(
    model: Path, number: float, tmp_path: Path
) -> None:
    values = read_config(model)
    for changes in ({"sample_rate": number}, {"hyperparameters": {"a": [[{"b": number}]]}}):
        if "sample_rate" not in changes or isinstance(number, int):
            (tmp_path / "config.json").write_text(json.dumps(values | changes))
            with pytest.raises(ModelError, match="config.json has the "):
                read_config(tmp_path)
