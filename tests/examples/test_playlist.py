"""E2: 42 numbers learn from each skip, in floats and in integers; what is said of them is what moved."""

from __future__ import annotations

import importlib
import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

import microtune as mt
from microtune import gallery

KINDS = ("float", "integers")


class Example(NamedTuple):
    """The modules of the example, gathered at once: another example's may take their names later."""

    run: ModuleType
    world: ModuleType
    player: ModuleType
    trial: ModuleType
    words: ModuleType
    network: ModuleType
    teacher: ModuleType


@pytest.fixture(scope="module")
def example() -> Example:
    run = gallery.load_example("playlist")
    return Example(run, *(importlib.import_module(name) for name in Example._fields[1:]))


@pytest.fixture(scope="module")
def run(example: Example) -> ModuleType:
    return example.run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("playlist")


@pytest.fixture(scope="module")
def made(run: ModuleType, folder: Path) -> Any:
    """A factory's student that a small population has taught, of a tuning seed."""
    return run.factory(3, folder, people=50)


@pytest.fixture(scope="module")
def told(run: ModuleType, made: Any, folder: Path) -> Any:
    """What ``microtune demo playlist --json`` prints, of two people; its packages serve the other tests."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr(run, "factory", lambda seed, folder: made)
        found = run.demo(folder / "playlist", as_json=True, count=2)
    assert json.loads(printed.getvalue()) == found
    return found


Players = dict[str, tuple[mt.Package, mt.Plan]]


@pytest.fixture(scope="module")
def players(run: ModuleType, made: Any, told: Any, folder: Path) -> Players:
    plans = run.plans(made.parameters, made.inputs)
    names = {"float": "playlist", "integers": "playlist_integers"}
    return {kind: (mt.open_package(folder / name), plans[kind]) for kind, name in names.items()}


@pytest.fixture(scope="module")
def mornings(run: ModuleType, made: Any, told: Any, folder: Path) -> Players:
    plans = run.plans(run.calm_mornings(), made.inputs)
    return {kind: (mt.open_package(folder / f"playlist_morning_{kind}"), plans[kind]) for kind in KINDS}


def test_songs_hang_together_as_in_real_catalogues(run: ModuleType) -> None:
    songs = run.songs_of(3)
    features = np.stack([song.features for song in songs])
    assert features.shape == (480, 10) and np.abs(features).max() <= 1.0
    assert np.abs(features.mean(axis=0)).max() < 0.2  # centred
    together = dict(zip(run.FEATURES, np.corrcoef(features.T)[run.FEATURES.index("energy")], strict=True))
    assert together["loudness"] > 0.6 and together["acousticness"] < -0.6 and together["tempo"] > 0.3


def test_the_less_a_song_is_wanted_the_more_it_is_skipped_and_the_earlier(example: Example, run: ModuleType) -> None:
    song, rng = run.songs_of(3)[0], np.random.default_rng(0)
    shares = []
    for logit in (-3.0, 0.0, 3.0):
        seconds = np.array([example.world.heard(rng, song, logit) for _ in range(2000)])
        skipped = seconds[seconds < song.seconds]
        shares.append((1.0 - len(skipped) / 2000, np.mean(skipped < example.world.EARLY)))
        assert skipped.max() <= example.world.LATEST * song.seconds
    sigmoid = 1.0 / (1.0 + np.exp(-np.array([-3.0, 0.0, 3.0])))
    assert np.abs(np.array(shares)[:, 0] - sigmoid).max() < 5 * np.sqrt(0.25 / 2000)
    assert shares[0][1] > 0.9 > shares[1][1] > 0.5 > shares[2][1]


def test_inputs_by_hand(example: Example, run: ModuleType) -> None:
    """A skip at three seconds, then a song heard to the end, by the means of the page's definitions."""
    first, second, third = run.songs_of(3)[:3]
    device = example.player.Player()
    assert np.array_equal(device.inputs(first, 4)[10:18], np.zeros(8))  # nothing is known
    device.add(first, 3.0)
    device.add(second, second.seconds)
    found = device.inputs(third, 4)
    assert np.array_equal(found[:10], third.features) and found[18:].tolist() == [0, 0, 0, 0, 1, 0]
    # shares of the crowd, 0.5, 0.3 and 0.2, count like four songs, and in the session like one
    lately, today = (4 * 0.5 + 1) / 6, (0.5 + 1) / 3
    assert found[10:12] == pytest.approx([2 * (lately - 0.5), 2 * (today - 0.5)])
    away = np.linalg.norm(third.features - (first.features + second.features) / 2) / example.player.FAR
    assert found[12:14] == pytest.approx([1 - away, 1 - away])
    early = [(4 * 0.3 + 1) / 6 - 0.3, (0.3 + 1) / 3 - 0.3]
    late = [4 * 0.2 / 6 - 0.2, 0.2 / 3 - 0.2]
    assert found[14:18] == pytest.approx(2 * np.array(early + late))
    device.begin()  # the session is forgotten, the long term is not
    again = device.inputs(third, 4)
    assert again[[11, 13, 15, 17]].tolist() == [0, 0, 0, 0] and again[[10, 12, 14, 16]] == pytest.approx(
        found[[10, 12, 14, 16]]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_42_parameters_learn_and_all_of_them_do(run: ModuleType, players: Any, kind: str) -> None:
    package, plan = players[kind]
    shapes = {each["name"]: each["shape"] for each in package.manifest["tensors"]["trained"]}
    own = {"mood": [10], "history": [4], "skip": [4]} if kind == "float" else {"mood_history_skip": [18]}
    assert shapes == {**own, "scoring": [1, 18], "time": [1, 6]}
    assert package.fixed == (kind == "integers")
    device, random = mt.Device(package), np.random.default_rng(0)
    first = run.numbers(device, plan)
    assert first.own.size + first.scoring.size + first.time.size == 42
    moved = {name: np.zeros(getattr(first, name).shape, bool) for name in ("own", "scoring", "time")}
    for number in range(240):
        song = np.concatenate([random.uniform(-1, 1, 18), np.eye(6)[number % 6]])
        device.step(song, [float(song[:9].sum() > 0)])
        now = run.numbers(device, plan)
        for name, ever in moved.items():
            ever |= getattr(now, name) != getattr(first, name)
    assert all(ever.all() for ever in moved.values()), moved


@pytest.mark.parametrize("kind", KINDS)
def test_the_morning_run(run: ModuleType, mornings: Any, kind: str) -> None:
    """It is morning: an acoustic, slow song comes up with 0.85 and is skipped at three seconds."""
    package, plan = mornings[kind]
    found = run.morning_run(package, plan)
    assert found.first == pytest.approx(0.85, abs=0.005)
    assert found.learnt < 0.65 and found.now < 0.4
    device = mt.Device(package)
    before = run.numbers(device, plan)
    device.predict(run.Player().inputs(run.ACOUSTIC_AND_SLOW, run.MORNING_SLOT))
    device.observe([0.0])
    device.idle()
    moved = dict(zip(run.FEATURES, (run.numbers(device, plan).weights - before.weights)[:10], strict=True))
    assert moved["acousticness"] < -0.1 and moved["energy"] > 0.1 and moved["tempo"] > 0.1
    assert any(line.startswith("acousticness down") and line.endswith("is acoustic") for line in found.said)
    assert any(line.startswith("energy up") and line.endswith("is calm") for line in found.said)
    assert any(line.startswith("tempo up") and line.endswith("is slow") for line in found.said)


def test_words_say_what_really_moved(example: Example, run: ModuleType, players: Any) -> None:
    """Against the parameters themselves and the network in numpy: effects add up to the change of the logit."""
    package, plan = players["float"]
    device, listener = mt.Device(package), run.draw_listener(np.random.default_rng(8))
    directions = set()
    for play in run.session(listener, run.Player(), run.songs_of(503), np.random.default_rng(9)):
        raw, before = device.parameters(), example.words.numbers(device, plan)
        run.learn(device, play)
        learnt, after = device.parameters(), example.words.numbers(device, plan)
        moved = sum(int(np.sum(raw[name] != learnt[name])) for name in raw)
        found, lines = example.words.changes(before, after, play.inputs), example.words.tell(before, after, play.inputs)
        exact = (
            {name: values.astype(float) for name, values in raw.items()},
            {name: values.astype(float) for name, values in learnt.items()},
        )
        was, becomes = (float(example.network.logits(each, play.inputs)) for each in exact)
        assert sum(each.effect for each in found) == pytest.approx(becomes - was, abs=1e-9)
        direction = "higher" if play.liked else "lower"
        directions.add(direction)
        assert lines[0].startswith(f"{moved} of 42 numbers moved") and direction in lines[0]
        assert len(lines) == 4 and [abs(each.effect) for each in found] == sorted(
            (abs(each.effect) for each in found), reverse=True
        )
        told = {each.name: each for each in found}
        for number, name in enumerate(run.FEATURES):
            own = raw["mood"] * raw["scoring"][0, :10], learnt["mood"] * learnt["scoring"][0, :10]
            if name in told:
                assert (told[name].before, told[name].after) == pytest.approx(
                    (own[0][number], own[1][number]), rel=1e-5
                )
                assert (f"{name} up" in told[name].text) == (own[1][number] > own[0][number])
        assert set(told) & {*run.TIMES} <= {run.TIMES[play.slot]}  # other times of day did not move
    assert directions == {"higher", "lower"}
    assert example.words.tell(before, before, play.inputs) == ["nothing moved"]


def test_why_a_weight_moved_against_its_song(example: Example) -> None:
    """A weight that moved the other way is not said to have moved because of the song."""
    before = example.words.Numbers(np.ones(18), np.zeros(18), np.zeros(6))
    scoring = np.zeros(18)
    scoring[[1, 3]] = -0.5, 0.1  # energy down, acousticness up: of an energetic, acoustic song that was skipped
    inputs = np.zeros(24)
    inputs[[1, 3, 18]] = 0.9, 0.8, 1.0
    energy, acousticness = example.words.changes(before, replace(before, scoring=scoring), inputs)
    assert energy.text == "energy down, +0.00 to -0.50: the song is energetic"
    assert acousticness.text == "acousticness up, +0.00 to +0.10: moved along with the others"


@pytest.mark.parametrize("kind", KINDS)
def test_a_power_cut_in_a_session(run: ModuleType, players: Any, kind: str, tmp_path: Path) -> None:
    """Whatever was written of a save, the player wakes up with the numbers before it or after it."""
    package, _ = players[kind]
    path, torn = tmp_path / "player.state", tmp_path / "torn.state"
    device, steady = mt.Device(package, path), mt.Device(package)
    listener = run.draw_listener(np.random.default_rng(8))
    plays = list(run.session(listener, run.Player(), run.songs_of(503), np.random.default_rng(9)))

    def of(each: mt.Device) -> bytes:
        return b"".join(values.tobytes() for _, values in sorted(each.parameters().items()))

    seen = set()
    for number, play in enumerate(plays[:5]):
        old, before = path.read_bytes() if number else b"", of(device)
        run.learn(device, play)
        run.learn(steady, play)
        new, after = path.read_bytes(), of(device)
        assert before != after == of(steady)
        for size in (0, len(new) // 3, len(new) // 2, len(new) - 1, len(new)) if number else (len(new),):
            torn.write_bytes(new[:size] + old[size:])
            found = of(mt.Device(package, torn))
            assert found in (before, after)
            seen.add(found == after)
        device = mt.Device(package, path)  # off and on again
        assert of(device) == after
    assert seen == {True, False}
    assert device.predict(plays[5].inputs).value == pytest.approx(steady.predict(plays[5].inputs).value, abs=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_mornings_that_differ_from_evenings(example: Example, run: ModuleType, players: Any, kind: str) -> None:
    """Somebody wants in the morning the opposite of the evening: their six numbers of time learn that."""
    package, plan = players[kind]
    rng = np.random.default_rng((5, 2))
    listener = replace(
        run.draw_listener(rng),
        when=np.array([0.0, 0.5, 0.0, 0.0, 0.5, 0.0]),
        gains=np.array([1.0, -1.0, 1.0, 1.0, 1.0, 1.0]),
        slots=np.zeros((6, 10)),
    )
    songs, device = run.songs_of(503), mt.Device(package)
    fresh = example.player.afterwards(listener, example.player.Player(), songs, rng, 30)

    def areas() -> list[float]:
        return [
            example.trial.rating(example.trial.chances(device, at), at).area
            for at in ([play for play in fresh if play.slot == slot] for slot in (1, 4))
        ]

    first = areas()
    for play in example.player.live(listener, example.player.Player(), songs, rng, 60):
        example.trial.learn(device, play)
    morning, evening = run.numbers(device, plan).times[[1, 4]]
    assert min(areas()) > 0.75 > min(first)
    assert morning < 0.0 < evening, "one sign in the morning, the other in the evening"


def test_what_is_fresh_was_never_heard_and_hangs_on_nothing_else(example: Example, run: ModuleType) -> None:
    both = (
        example.trial.trial(9, run.songs_of(503), counts=(5,), sessions=2),
        example.trial.trial(9, run.songs_of(503), counts=(5, 20), sessions=2),
    )
    assert [len(each.plays) for each in both] == [5, 20]
    for first, second in zip(both[0].fresh[5], both[1].fresh[5], strict=True):
        assert np.array_equal(first.inputs, second.inputs) and first.seconds == second.seconds
    heard = {play.song.title for play in both[1].plays}
    assert not heard & {play.song.title for play in both[1].fresh[20]}


def test_rating_by_hand(example: Example, run: ModuleType) -> None:
    play = example.trial.trial(9, run.songs_of(503), counts=(5,), sessions=1).fresh[5][0]
    plays = [replace(play, seconds=play.song.seconds if liked else 1.0) for liked in (1, 0, 0, 0, 1, 1, 1)]
    found = example.trial.rating(np.array([0.9, 0.1, 0.2, 0.8, 0.7, 0.3, 0.5]), plays)
    # of 4 x 3 pairs, those the wrong way round are 0.8 against 0.7, 0.3 and 0.5; taken are the first and the fourth
    assert found.area == pytest.approx(9 / 12) and found.heard == 0.5
    assert example.trial.rating(np.array([0.4, 0.6, 0.5]), plays[-3:]).area == 0.5  # liked all, which tells nothing


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_songs_tell_a_listener_from_the_crowd(
    example: Example, run: ModuleType, players: Any, kind: str
) -> None:
    """The whole of it, on a hundred people, is in benchmarks/playlist.py; here are twelve, of a tuning seed."""
    package, _ = players[kind]
    trials = [example.trial.trial(3000 + number, run.songs_of(503), counts=(20,), sessions=8) for number in range(12)]
    areas = np.array(
        [[example.trial.known(package, each, learns)[20].area for learns in (False, True)] for each in trials]
    ).mean(axis=0)
    assert areas[1] >= areas[0] + 0.1 and areas[0] > 0.5


def test_the_demo_tells_its_figures(told: Any) -> None:
    assert told["listeners"] == 2 and set(told["morning"]) == set(KINDS)
    for kind in KINDS:
        assert set(told[kind]["base"]) == set(told[kind]["learnt"]) == {"5", "10", "20", "50"}
        assert all(0.0 < each["area"] < 1.0 and 0.0 < each["heard"] < 1.0 for each in told[kind]["learnt"].values())
        cost = told[kind]["cost"]
        assert cost["parameters"] == 42 and 0 < cost["predict"] < cost["step"]
    floats, integers = told["float"]["cost"], told["integers"]["cost"]
    assert floats["ram"] <= 4_608 and floats["step"] <= 20_000 and floats["core"] == "cortex-m4"
    assert integers["ram"] <= 512 and integers["step"] <= 4_000 and integers["core"] == "cortex-m0"


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_by_itself_learns_the_same_bits_as_the_whole_loop(
    example: Example, run: ModuleType, players: Any, kind: str
) -> None:
    package, _ = players[kind]
    loop, steps = mt.Device(package), mt.Device(package)
    for play in example.trial.trial(9, run.songs_of(503), counts=(20,), sessions=1).plays:
        example.trial.learn(loop, play)
        steps.step(play.inputs, [play.liked])
        found = loop.parameters(), steps.parameters()
        assert all(found[0][name].tobytes() == found[1][name].tobytes() for name in found[0])


def test_a_student_learns_more_from_a_teacher_than_alone(example: Example, made: Any, folder: Path) -> None:
    """On people that taught neither; ten populations and more plays are in benchmarks/playlist.py."""
    teacher, loss = example.teacher, {}
    listening, others = teacher.population(3, 50), teacher.population(1003, 30)
    some = listening.some(np.random.default_rng((3, 0x5EE)), teacher.EVENTS)
    assert np.array_equal(some.inputs, made.inputs)
    for name, parameters in (
        ("distilled", made.parameters),
        ("alone", teacher.train_student(some.inputs, some.liked, 3, folder)),
    ):
        logits = example.network.logits(parameters, others.inputs)
        loss[name] = np.mean(np.logaddexp(0.0, logits) - others.liked * logits)
    assert loss["distilled"] < loss["alone"] - 0.01
