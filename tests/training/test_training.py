"""Training: material, recipes, the loop, and what it exports."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nets import SMALL_EXTENDER, SMALL_MIXER, save_model, small_mixer
from numpy.typing import NDArray
from torch import Tensor

from speakup.errors import ConfigError, ModelError, OutputError
from speakup.models.catalogue import load_model
from speakup.networks import ARCHITECTURES, spectra
from speakup.training import perception, trainer
from speakup.training import recipe as recipe_module
from speakup.training.bandlimits import UpsampleRecipe
from speakup.training.checkpoint import start_from
from speakup.training.data import Corpus
from speakup.training.export import export
from speakup.training.mixtures import MixtureRecipe, MixtureSimulator
from speakup.training.objective import check_losses
from speakup.training.recipe import (
    AdversaryRecipe,
    DataRecipe,
    OptimiserRecipe,
    Recipe,
    build_recipe,
    read_recipe,
)
from speakup.training.trainer import TrainingLog, learning_rate_share, train

RATE = 16_000


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def voice(seconds: float, hertz: float, rate: int = RATE) -> NDArray[np.float64]:
    """Give a buzz with harmonics up to 8 kHz that comes and goes."""
    time = np.arange(round(seconds * rate)) / rate
    harmonics = np.arange(1, int(8_000 / hertz))[:, None]
    buzz = (np.sin(2 * np.pi * hertz * harmonics * time) / harmonics**0.5).sum(axis=0)
    return 0.1 * buzz * (1.1 + np.sin(2 * np.pi * 3 * time))


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of a few seconds of "speech", noise and one room."""
    root = tmp_path_factory.mktemp("material")
    random = np.random.default_rng(1)
    decay = np.exp(-np.arange(4_000) / 800) * random.standard_normal(4_000)
    decay[:10] = 0.0
    decay[10] = -5.0
    sounds = {
        "speech/a/one.wav": voice(1.5, 110),
        "speech/a/two.flac": voice(0.5, 150),
        "speech/b/three.wav": voice(1.0, 210),
        "noise/hiss/hiss.wav": 0.1 * random.standard_normal(8_000),
        "rooms/kept/room.wav": 0.15 * decay,
    }
    for name, samples in sounds.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, samples.clip(-1, 1), RATE)
    return root


def corpus(root: Path, cache: Path, *patterns: str, rate: int = RATE) -> Corpus:
    return Corpus(root, dict.fromkeys(patterns, 1.0), rate, cache)


def small_recipe(task: str = "denoise", **changes: Any) -> Recipe:
    mixer = task == "denoise"
    known: dict[str, Any] = {
        "name": "small",
        "task": task,
        "architecture": "band-mixer" if mixer else "source-filter-extender",
        "hyperparameters": SMALL_MIXER if mixer else SMALL_EXTENDER,
        "data": {
            "speech": {"speech/*": 1.0},
            "noise": {"noise/*": 1.0},
            "rooms": {"rooms/*": 1.0},
            "sample_rate": RATE if mixer else 44_100,
        },
        "optimiser": SMALL_PLAN,
        "losses": {"complex": 1.0, "magnitude": 1.0, "log_spectral": 0.1},
        "resolutions": [[512, 128]],
        "description": "A test",
    }
    return build_recipe(known | changes, "small.toml")


SMALL_PLAN: dict[str, Any] = {
    "steps": 4,
    "batch": 2,
    "micro_batch": 1,
    "segment_seconds": 0.3,
    "warmup_steps": 2,
    "decay_steps": 2,
}

GAN: dict[str, Any] = {
    "adversary": {"from_step": 1, "spectral": [[256, 128]], "periods": [3], "channels": 4},
    "losses": {"complex": 1.0, "distortion": 0.1, "adversarial": 0.5, "feature": 0.5},
}
TURNS: dict[str, Any] = GAN | {
    "adversary": {
        "from_step": 0,
        "patches": [[256, 64], [512, 128]],
        "periods": [3],
        "channels": 8,
        "in_turn": True,
        "judged": 1,
    },
}


# Material


def test_a_corpus_holds_what_its_patterns_match(material: Path, tmp_path: Path) -> None:
    both = corpus(material, tmp_path, "speech/*")
    assert [len(source) for source in both.sources] == [2, 1]
    assert both.hours == pytest.approx(3.0 / 3_600)
    assert len(corpus(material, tmp_path, "speech/a").sources) == 1
    assert corpus(material, tmp_path, "speech/a", rate=8_000).hours == pytest.approx(2.0 / 3_600)


def test_a_corpus_is_decoded_once(material: Path, tmp_path: Path) -> None:
    root = shutil.copytree(material, tmp_path / "copy")
    first = corpus(root, tmp_path / "cache", "speech/a")
    (root / "speech/a/one.wav").write_bytes(bytes((root / "speech/a/one.wav").stat().st_size))
    second = corpus(root, tmp_path / "cache", "speech/a")
    for one, two in zip(first.sources[0], second.sources[0], strict=True):
        assert np.array_equal(one, two)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


def test_loud_recordings_are_brought_within_full_scale(tmp_path: Path) -> None:
    (tmp_path / "loud").mkdir()
    soundfile.write(tmp_path / "loud/a.wav", 3.0 * voice(0.2, 100), RATE, "FLOAT")
    soundfile.write(tmp_path / "loud/b.wav", np.zeros((0, 1)), RATE)
    loud = corpus(tmp_path, tmp_path / "cache", "loud")
    assert [len(source) for source in loud.sources] == [1]  # what is empty is left out
    assert 0.98 < float(np.abs(loud.sources[0][0]).max()) / 32_767 < 1.0


def test_material_that_is_not_there_is_said_so(material: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder matches"):
        corpus(material, tmp_path, "speech/c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no recordings"):
        corpus(tmp_path, tmp_path, "empty")
    (tmp_path / "empty/a.wav").write_text("no sound")
    with pytest.raises(ConfigError, match=r"a\.wav: cannot be decoded"):
        corpus(tmp_path, tmp_path, "empty")


def test_an_adversary_of_impossible_width_is_said() -> None:
    adversary = AdversaryRecipe(from_step=0, bands=((512, 256),), channels=20)
    with pytest.raises(ConfigError, match="multiple of 8"):
        trainer._build_discriminators(adversary, torch.device("cpu"))


def test_a_run_can_begin_with_the_mean_of_others(tmp_path: Path) -> None:
    networks = [small_mixer(seed) for seed in range(3)]
    folders = [save_model(tmp_path / str(index), one) for index, one in enumerate(networks[:2])]
    begun = networks[2]
    start_from(begun, tuple(str(folder) for folder in folders))
    known = [load_model(str(folder)).network.state_dict() for folder in folders]
    for name, weight in begun.state_dict().items():
        assert torch.allclose(weight, (known[0][name] + known[1][name]) / 2, atol=1e-6), name
    start_from(begun, str(folders[1]))
    assert equal(dict(begun.state_dict()), dict(known[1]))
    other = save_model(tmp_path / "other", ARCHITECTURES["band-extender"](**SMALL_EXTENDER))
    with pytest.raises(ModelError, match="other"):
        start_from(begun, (str(folders[0]), str(other)))


# Recipes


RECIPE = """
name = "small"
task = "denoise"
architecture = "band-mixer"
resolutions = [[512, 128], [1024, 256]]
[hyperparameters]
groups = [[16, 4], [8, 8], [8, 16]]
dilations = [1, 2]
[data]
speech = { "speech/*" = 1.0 }
[optimiser]
steps = 3
[losses]
complex = 1.0
[adversary]
from_step = 2
spectral = [[256, 64]]
"""


def test_a_recipe_is_read_into_its_fields(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(RECIPE)
    recipe = read_recipe(tmp_path / "a.toml")
    assert recipe.data == DataRecipe({"speech/*": 1.0})
    (phase,) = recipe.phases
    assert (phase.name, phase.steps, phase.seed, phase.start) == ("small", 3, 0, ())
    assert phase.resolutions == ((512, 128), (1_024, 256))
    assert phase.optimiser == OptimiserRecipe(steps=3)
    assert phase.adversary == AdversaryRecipe(2, spectral=((256, 64),))


PHASES = """
[[phase]]
name = "easy"
hours = 2
seed = 5
optimiser = { steps = 0, batch = 10, segment_seconds = 6.0 }

[[phase]]
name = "hard"
start = "easy"
simulation = { room = 0.5 }
losses = { complex = 0.0, magnitude = 2.0 }
optimiser = { learning_rate = 0.5 }
"""


def test_phases_change_single_keys_of_what_holds_for_all(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(RECIPE + PHASES)
    easy, hard = read_recipe(tmp_path / "a.toml").phases
    assert easy.steps == 120  # two hours are 7,200 s; a step hears 60
    assert easy.step_hours * easy.steps == pytest.approx(2.0)
    assert (easy.losses, hard.losses) == ({"complex": 1.0}, {"magnitude": 2.0})
    assert hard.optimiser == OptimiserRecipe(steps=3, learning_rate=0.5)
    assert (easy.start, hard.start) == ((), ("easy",))
    assert (easy.simulation, hard.simulation) == ({}, {"room": 0.5})
    assert easy.adversary == hard.adversary == AdversaryRecipe(2, spectral=((256, 64),))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"hard"', '"easy"', "two phases of one name"),
        ("steps = 0, ", "", "either steps or hours"),
        ("hours = 2", "", "either steps or hours"),
        ("seed = 5", "sead = 5", "unknown key sead"),
        ("batch = 10", 'kind = "adam"', "Choose adamw or muon"),
    ],
)
def test_a_phase_with_a_mistake_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PHASES
    (tmp_path / "a.toml").write_text(RECIPE + PHASES.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        read_recipe(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name =", "nmae =", "unknown key nmae"),
        ("steps = 3", "steps = 3\nstep = 4", r"\[optimiser\]: unknown key step"),
        ("speech = {", "speach = {", r"\[data\]: unknown key speach"),
        ("from_step = 2", "", r"\[adversary\]: a key is missing"),
        ('task = "denoise"\n', "", "a key is missing"),
        ('task = "denoise"', 'task = "sing"', "Choose denoise or upsample"),
        ("name =", "name", "is not a TOML recipe"),
        ('speech = { "speech/*" = 1.0 }', "speech = {}", "names no speech"),
        ("[adversary]\nfrom_step = 2\nspectral = [[256, 64]]", "", ""),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in RECIPE
    (tmp_path / "a.toml").write_text(RECIPE.replace(old, new))
    if not said:
        assert read_recipe(tmp_path / "a.toml").phases[0].adversary is None
        return
    with pytest.raises(ConfigError, match=said):
        read_recipe(tmp_path / "a.toml")


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not a TOML recipe"):
        read_recipe(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("data = 3\n" + RECIPE.replace("[data]\n", "[losses2]\n"))
    with pytest.raises(ConfigError, match="is no table"):
        read_recipe(tmp_path / "b.toml")


RECIPES = sorted((Path(recipe_module.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_come_along_can_be_trained(path: Path) -> None:
    recipe = read_recipe(path)
    network = ARCHITECTURES[recipe.architecture](**recipe.hyperparameters)
    assert sum(weight.numel() for weight in network.parameters()) > 100_000
    kind = MixtureRecipe if recipe.task == "denoise" else UpsampleRecipe
    for phase in recipe.phases:
        check_losses(phase.losses, phase.name)
        recipe_module.build(kind, phase.simulation, "[simulation]")


# The loop


def stored(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return torch.equal(one, two) if isinstance(one, Tensor) else one == two


@pytest.mark.parametrize("task", ["denoise", "upsample"])
def test_two_steps_change_the_weights_and_are_told(
    material: Path, tmp_path: Path, task: str
) -> None:
    recipe = small_recipe(task, optimiser=SMALL_PLAN | {"steps": 2})
    told: list[TrainingLog] = []
    checkpoint = train(recipe, material, tmp_path / "run", on_log=told.append, log_every=1)
    assert checkpoint == tmp_path / "run" / "checkpoint.pt"
    assert [entry.step for entry in told] == [1, 2]
    assert set(told[0].losses) == {"complex", "magnitude", "log_spectral", "gradient_norm"}
    assert all(math.isfinite(value) for value in told[1].losses.values())
    assert told[0].audio_seconds_per_second > 0.0
    after = stored(checkpoint)
    assert after["step"] == 2
    torch.manual_seed(0)
    before = ARCHITECTURES[recipe.architecture](**recipe.hyperparameters).state_dict()
    changed = [key for key in before if not torch.equal(before[key], after["generator"][key])]
    assert len(changed) == len(before)
    assert not any(torch.equal(after["average"][key], after["generator"][key]) for key in before)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.pt", "phases"}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, GAN, TURNS], ids=["regression", "gan", "in turn"])
@pytest.mark.parametrize("stopped", [1, 2, 3], ids=["in the first", "between", "in the second"])
def test_a_resumed_run_is_an_unbroken_one_bit_for_bit(
    material: Path, tmp_path: Path, changes: dict[str, Any], kind: str, stopped: int
) -> None:
    """Stopped within a phase, or when one is done and the next has not yet begun."""
    plan = SMALL_PLAN | {"steps": 2, "kind": kind, "edges": ["split", "join"]}
    phases = [{"name": "one", "seed": 1}, {"name": "two", "seed": 2}]
    recipe = small_recipe(**changes, optimiser=plan, phase=phases)
    unbroken = train(recipe, material, tmp_path / "unbroken")

    class Stop(Exception):
        pass

    told: list[TrainingLog] = []

    def stop(entry: TrainingLog) -> None:
        told.append(entry)
        if len(told) == stopped + 1:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, material, tmp_path / "broken", on_log=stop, log_every=1, save_seconds=0.0)
    torch.manual_seed(99)
    resumed = train(recipe, material, tmp_path / "broken")
    assert equal(stored(resumed), stored(unbroken))


def test_a_resumed_run_draws_what_its_network_would_have_drawn(
    material: Path, tmp_path: Path
) -> None:
    """The upsampler's noise begins elsewhere in every step."""
    longer = SMALL_PLAN | {"steps": 3}
    unbroken = train(small_recipe("upsample", optimiser=longer), material, tmp_path / "one")
    run = tmp_path / "two"

    class Stop(Exception):
        pass

    def stop(entry: TrainingLog) -> None:
        if entry.step == 2:
            raise Stop

    with pytest.raises(Stop):
        recipe = small_recipe("upsample", optimiser=longer)
        train(recipe, material, run, on_log=stop, log_every=1, save_seconds=0.0)
    torch.manual_seed(99)
    resumed = train(small_recipe("upsample", optimiser=longer), material, run)
    assert equal(stored(resumed), stored(unbroken))


def test_a_seed_decides_what_is_drawn(material: Path, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> list[dict[str, float]]:
        recipe = small_recipe(seed=seed)
        told: list[TrainingLog] = []
        train(recipe, material, tmp_path / name, on_log=told.append, log_every=1)
        return [entry.losses for entry in told]

    assert run("one", 1) == run("again", 1)
    first, second = run("other", 2), run("one more", 3)
    assert all(one["complex"] != two["complex"] for one, two in zip(first, second, strict=True))
    seeds = {trainer.draw_seed(seed, step) for seed in range(20) for step in range(200)}
    assert len(seeds) == 4_000 and max(seeds) < 2**32


def test_a_finished_run_stays_as_it_is(material: Path, tmp_path: Path) -> None:
    checkpoint = train(small_recipe(), material, tmp_path / "run")
    before = checkpoint.read_bytes()
    told: list[TrainingLog] = []
    train(small_recipe(), material, tmp_path / "run", on_log=told.append, log_every=1)
    assert checkpoint.read_bytes() == before and told == []


def test_discriminators_learn_from_their_step_on(material: Path, tmp_path: Path) -> None:
    told: list[TrainingLog] = []
    recipe = small_recipe(**GAN)
    checkpoint = train(recipe, material, tmp_path / "run", on_log=told.append, log_every=1)
    adversarial = {"discriminator", "adversarial", "feature"}
    assert not adversarial & set(told[0].losses)
    assert all(adversarial <= set(entry.losses) for entry in told[1:])
    torch.manual_seed(0)
    before = trainer._build_state(recipe, recipe.phases[0], torch.device("cpu")).discriminators
    assert before is not None
    after = stored(checkpoint)["discriminators"]
    assert not any(torch.equal(after[key], weight) for key, weight in before.state_dict().items())


def test_a_run_can_go_on_with_discriminators(material: Path, tmp_path: Path) -> None:
    train(small_recipe(), material, tmp_path / "run")
    longer = small_recipe(**GAN, optimiser=SMALL_PLAN | {"steps": 5})
    assert stored(train(longer, material, tmp_path / "run"))["step"] == 5


def test_no_numbers_teach_nothing(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that comes out as no numbers must not spoil generator or discriminators."""
    draw = MixtureSimulator.draw

    def broken(*arguments: Any) -> tuple[Tensor, Tensor]:
        degraded, clean = draw(*arguments)
        return degraded * math.nan, clean

    monkeypatch.setattr(MixtureSimulator, "draw", broken)
    weights = stored(train(small_recipe(**GAN), material, tmp_path / "run"))
    for part in ("generator", "average", "discriminators"):
        assert all(torch.isfinite(weight).all() for weight in weights[part].values())


def test_the_learning_rate_warms_up_holds_and_decays() -> None:
    plan = OptimiserRecipe(warmup_steps=10, decay_steps=20, final_share=0.1)
    shares = [learning_rate_share(step, 100, plan) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10:80] == [1.0] * 70
    assert shares[90] == pytest.approx(0.5)
    assert shares[99] == 0.1
    assert all(one >= two for one, two in zip(shares[80:], shares[81:], strict=False))
    whole = OptimiserRecipe(warmup_steps=0, decay_steps=1_000)
    assert learning_rate_share(0, 100, whole) == 1.0
    assert learning_rate_share(50, 100, whole) == 0.5
    assert learning_rate_share(54, 100, plan, renewed=50) == 0.5


def test_a_branch_of_one_phase_begins_with_another_runs_checkpoint(
    material: Path, tmp_path: Path
) -> None:
    phases = [{"name": "long"}, {"name": "settle"}]
    recipe = small_recipe(phase=phases)
    long = train(recipe, material, tmp_path / "long", only="long")
    before = stored(long)
    assert (before["phase"], before["step"]) == ("long", 4)
    branch = stored(train(recipe, material, tmp_path / "branch", only="settle", start=long))
    assert (branch["phase"], branch["step"]) == ("settle", 4)
    assert branch["hours"] == pytest.approx(2 * before["hours"]) and before["hours"] > 0.0
    whole = stored(train(recipe, material, tmp_path / "long"))
    assert equal(branch, whole)
    with pytest.raises(ConfigError, match="has no phase 'short'"):
        train(recipe, material, tmp_path / "long", only="short")


def test_a_run_goes_on_from_exported_weights_where_they_were_made(
    material: Path, tmp_path: Path
) -> None:
    """As on a new machine: phases before are not run again, and the rate warms up anew."""
    phases = [{"name": "one"}, {"name": "two", "seed": 2}, {"name": "three"}]
    recipe = small_recipe(phase=phases)
    train(recipe, material, tmp_path / "old", only="one")
    part = small_recipe(phase=phases, optimiser=SMALL_PLAN | {"steps": 2})
    resumed_at = train(part, material, tmp_path / "old", only="two")
    folder = export(resumed_at, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    hours = 6 * 2 * 0.3 / 3_600
    assert (config["phase"], config["steps"]) == ("two", 2)
    told: list[TrainingLog] = []
    train(recipe, material, tmp_path / "new", start=folder, on_log=told.append, log_every=1)
    assert [(entry.phase, entry.step) for entry in told] == [
        ("two", 3),
        ("two", 4),
        *(("three", step) for step in (1, 2, 3, 4)),
    ]
    assert told[0].hours == pytest.approx(hours + 2 * 0.3 / 3_600, abs=0.006)
    again: list[TrainingLog] = []
    train(recipe, material, tmp_path / "new", on_log=again.append, log_every=1)
    assert not again


def test_a_phase_can_begin_with_the_mean_of_others(material: Path, tmp_path: Path) -> None:
    still = {"learning_rate": 0.0, "steps": 1}
    phases = [
        {"name": "one", "seed": 1},
        {"name": "two", "seed": 2, "start": []},
        {"name": "both", "start": ["one", "two"], "optimiser": still},
    ]
    mean = stored(train(small_recipe(phase=phases), material, tmp_path / "run"))["generator"]
    one, two = (stored(tmp_path / f"run/phases/{name}.pt")["average"] for name in ("one", "two"))
    assert all(torch.allclose(mean[key], (one[key] + two[key]) / 2, atol=1e-6) for key in mean)


def test_costly_listeners_hear_a_part_for_the_whole(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second of four micro-batches is judged, and its gradient counts twice."""
    heard: list[int] = []
    listen = perception.intelligibility_loss

    def counted(estimate: Tensor, reference: Tensor) -> Tensor:
        heard.append(len(estimate))
        return listen(estimate, reference)

    monkeypatch.setattr(perception, "intelligibility_loss", counted)
    plan = SMALL_PLAN | {"steps": 1, "batch": 4, "segment_seconds": 1.0, "costly_every": 2}
    losses = {"complex": 1.0, "intelligibility": 1.0}
    told: list[TrainingLog] = []
    recipe = small_recipe(optimiser=plan, losses=losses)
    train(recipe, material, tmp_path / "run", on_log=told.append, log_every=1)
    assert heard == [1, 1]
    assert 0.0 < told[0].losses["intelligibility"] < 1.5


@pytest.mark.parametrize("kind", ["folder", "checkpoint"])
def test_training_starts_from_other_weights(material: Path, tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        start = save_model(tmp_path / "model", small_mixer(7))
        expected = load_model(str(start)).network.state_dict()
    else:
        start = train(small_recipe(), material, tmp_path / "first")
        expected = stored(start)["average"]
    still = SMALL_PLAN | {"steps": 1, "learning_rate": 0.0}
    recipe = small_recipe(start=str(start), optimiser=still)
    weights = stored(train(recipe, material, tmp_path / "second"))["generator"]
    assert equal(dict(weights), dict(expected))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "transformer"}, "architecture is 'transformer'"),
        ({"hyperparameters": {"layers": 3}}, "make no network"),
        ({"hyperparameters": SMALL_MIXER | {"features": -2}}, "make no network"),
        ({"losses": {"complex": 1.0, "beauty": 1.0}}, "unknown loss beauty"),
        ({"losses": {"adversarial": 1.0}}, "has no loss for the steps before"),
        ({"data": {"speech": {"nowhere": 1.0}}}, "no folder matches"),
        ({"simulation": {"echo": 1.0}}, "unknown key echo"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_said_so(
    material: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        train(small_recipe(**changes), material, tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more", None])
def test_a_broken_checkpoint_is_said_so(
    material: Path, tmp_path: Path, content: bytes | None
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if content is None:
        torch.save({"step": 3}, run / "checkpoint.pt")
    else:
        (run / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ModelError, match="is no checkpoint"):
        train(small_recipe(), material, run)
    with pytest.raises(ModelError, match="is no checkpoint"):
        export(run / "checkpoint.pt", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_another_recipes_checkpoint_is_not_gone_on_with(material: Path, tmp_path: Path) -> None:
    train(small_recipe(), material, tmp_path / "run")
    other = small_recipe(hyperparameters=SMALL_MIXER | {"features": 12})
    with pytest.raises(ModelError, match="belongs to another recipe"):
        train(other, material, tmp_path / "run")


# Export


def test_what_is_exported_is_the_averaged_generator(material: Path, tmp_path: Path) -> None:
    checkpoint = train(small_recipe(), material, tmp_path / "run")
    folder = export(checkpoint, tmp_path / "models" / "small", licence="CC-BY-4.0")
    found = load_model(str(folder))
    names = {"README.md", "config.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    assert (found.card.name, found.card.task, found.card.licence) == (
        "small",
        "denoise",
        "CC-BY-4.0",
    )
    assert (found.card.sample_rate, found.card.description) == (RATE, "A test")
    assert json.loads((folder / "config.json").read_text())["steps"] == 4
    averaged = ARCHITECTURES["band-mixer"](**SMALL_MIXER).eval()
    averaged.load_state_dict(stored(checkpoint)["average"])
    waveform = 0.1 * torch.randn(1, 8_000, generator=seeded())
    with torch.inference_mode():
        exact, result = averaged(waveform), found.network(waveform)
        assert torch.equal(averaged.half().float()(waveform), result)
    assert float(spectra.rms(result - exact) / spectra.rms(exact)) < 1e-3
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o044 == 0o044 or path.stat().st_mode & 0o077 == 0


def test_an_export_replaces_what_was_there(material: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", small_mixer(3))
    export(train(small_recipe(), material, tmp_path / "run"), folder)
    assert load_model(str(folder)).card.description == "A test"


def test_exports_that_cannot_be_made_are_said_so(material: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        export(tmp_path / "missing.pt", tmp_path / "model")
    checkpoint = train(small_recipe(), material, tmp_path / "run")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export(checkpoint, tmp_path / "file" / "model")
