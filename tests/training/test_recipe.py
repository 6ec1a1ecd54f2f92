"""A2, A3: ``mt.shrink`` takes steps that earn their place, keeps what is whole, and refuses what does not fit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.ensemble import RandomForestClassifier

import microtune as mt
from microtune.errors import MicrotuneError, TrainingError
from microtune.progress import Progress
from microtune.search.variants import read_models
from microtune.training import artefacts, steps
from microtune.training.table import Row, Shrunk, figures

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

INPUTS, CLASSES = 12, 3
Pair = tuple[np.ndarray, np.ndarray]


def blobs(count: int, seed: int) -> Pair:
    """Three clouds that lie apart, in no order."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(7).normal(size=(CLASSES, INPUTS)) * 1.2
    y = rng.integers(0, CLASSES, count)
    return (middle[y] + rng.normal(size=(count, INPUTS))).astype("f4"), y


class Wide(nn.Module):
    """Far more hidden units than three clouds need."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(INPUTS, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, CLASSES)

    def forward(self, x: Any) -> Any:
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


@pytest.fixture(scope="module")
def wide() -> nn.Module:
    from microtune.training.fit import fit
    from microtune.training.samples import checked

    torch.manual_seed(0)
    net = Wide()
    fit(net, checked(*blobs(400, 0)), epochs=6, lr=3e-3)
    return net


DATA, VALIDATION, TEST = blobs(300, 1), blobs(200, 2), blobs(500, 3)
SETTINGS: dict[str, Any] = {"validation": VALIDATION, "test": TEST, "channels": (0.5,), "epochs": 2, "limit": 2.0}


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def done(wide: nn.Module, tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Shrunk:
    """The whole recipe, with training for int8 asked for."""
    folder = tmp_path_factory.mktemp("shrunk")
    return mt.shrink(wide, DATA, **SETTINGS, folder=folder, again=["qat"], progress=lambda text, row: told.append(text))


@pytest.fixture(scope="module")
def given(done: Shrunk) -> mt.Graph:
    """The float net as a graph: the same net to the recipe, and not written anew for each call."""
    return mt.load(done.base.file)


def row(found: Shrunk, step: str) -> Row:
    return next(each for each in found.table if each.step == step)


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.name != artefacts.KEPT}


def test_each_step_is_smaller_and_as_right_as_the_limit_says(done: Shrunk) -> None:
    assert [each.step for each in done.table] == ["float", "prune 50 %", "ptq", "qat"]
    base, narrow, small = done.base.cost, row(done, "prune 50 %").cost, done.best.cost
    assert base.weights > 2.5 * narrow.weights > 5 * small.weights
    assert base.flash > narrow.flash > small.flash and base.instructions and narrow.instructions
    assert base.instructions > narrow.instructions and base.ram > narrow.ram > small.ram
    assert all(each.cost.validation >= base.validation - 2.0 for each in done.table if each.kept)
    kept = {each.stem for each in read_models([done.best.file.parent]).values()}
    assert kept == {each.file.stem for each in done.table if each.kept}, "which a search takes, and no others"
    assert done.best.kept and done.times == base.flash / small.flash


def test_what_is_told_is_what_the_files_do(done: Shrunk, tmp_path: Path) -> None:
    """Flash, weights and accuracy again, by other ways than the recipe's: the image, and onnxruntime on the file."""
    import onnxruntime

    from microtune.targets.size import image_size

    for each in done.table:
        network = mt.compile_inference(mt.load(each.file), tmp_path / "again", ["cortex-m4"])
        assert image_size(network.directory / "lib" / "cortex-m4.elf").flash == each.cost.flash
        assert network.description["weights"] == each.cost.weights
        session = onnxruntime.InferenceSession(each.file.read_bytes(), providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0]
        outputs = np.concatenate([session.run(None, {source.name: x[None].astype("f4")})[0] for x in TEST[0]])
        right = 100 * float(np.mean(outputs.reshape(len(TEST[0]), -1).argmax(1) == TEST[1]))
        # equal int8 outputs and rounding ties may be told apart the other way in one sample of 500
        assert each.cost.test == pytest.approx(right, abs=0.21)


def test_the_test_decides_nothing(done: Shrunk, given: mt.Graph, tmp_path: Path) -> None:
    """With test samples whose labels are all wrong everything is decided as before, and nothing is trained again."""
    said: list[str] = []
    folder = tmp_path / "copy"
    shutil.copytree(done.best.file.parent, folder)
    wrong = TEST[0], (TEST[1] + 1) % CLASSES
    found = mt.shrink(
        given, DATA, **{**SETTINGS, "test": wrong}, folder=folder, progress=lambda text, _: said.append(text)
    )
    assert not [text for text in said if "begins" in text]
    assert [(each.step, each.file.name) for each in found.table if each.step != "qat"] == [
        (each.step, each.file.name) for each in done.table if each.step != "qat"
    ]
    assert found.base.cost.test is not None and found.base.cost.test < 20


def test_a_second_run_does_nothing_again(done: Shrunk, wide: nn.Module, told: list[str]) -> None:
    folder = done.best.file.parent
    before, said = contents(folder), list[str]()
    found = mt.shrink(wide, DATA, **SETTINGS, folder=folder, progress=lambda text, _: said.append(text))
    assert contents(folder) == before and not [text for text in said if "begins" in text or "measured" in text]
    assert "qat was not done" in " ".join(found.notes) and [each.step for each in found.table][-1] == "ptq"
    assert any("begins" in text for text in told)


def test_steps_are_skipped_and_repeated(done: Shrunk, given: mt.Graph) -> None:
    folder, said = done.best.file.parent, list[str]()
    before = contents(folder)
    skipped = mt.shrink(given, DATA, **SETTINGS, folder=folder, steps=["prune"])
    assert [each.step for each in skipped.table] == ["float", "prune 50 %"] and skipped.best.step == "prune 50 %"
    mt.shrink(
        given, DATA, **SETTINGS, folder=folder, steps=["ptq"], again=["ptq"], progress=lambda text, _: said.append(text)
    )
    assert [text for text in said if "begins" in text] == ["ptq: begins"]
    assert (folder / "float-ptq.onnx").is_file()
    assert {name: contents(folder)[name] for name in before} == before


def test_a_step_that_costs_more_than_the_limit_is_left_out(
    given: mt.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly all channels at once, hardly trained: the float net stays as wide as it was, and says why."""
    monkeypatch.setattr(steps, "LEAST_HALF_STEP", 1.0)
    found = mt.shrink(
        given, DATA, **{**SETTINGS, "channels": (0.95,), "epochs": 1, "limit": 0.0}, lr=1e-6,
        folder=tmp_path, steps=["prune"],
    )  # fmt: skip
    assert found.best.step != "prune 95 %" and not row(found, "prune 95 %").kept
    assert "points lost, 0 allowed" in row(found, "prune 95 %").says
    assert "No step earned its place" in str(found)


def test_a_failed_step_leaves_what_was_there(done: Shrunk, given: mt.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = done.best.file.parent
    before = contents(folder)
    import microtune.training.pruning as pruning

    def fails(*arguments: Any, **named: Any) -> Any:
        raise TrainingError("no more")

    monkeypatch.setattr(pruning, "prune", fails)
    with pytest.raises(TrainingError, match=r"prune 50 %: no more\. What came before it is whole in .*; to leave it"):
        mt.shrink(given, DATA, **SETTINGS, folder=folder, again=["prune"])
    assert contents(folder) == before


def test_a_run_that_was_stopped_goes_on_where_it_stopped(done: Shrunk, wide: nn.Module, tmp_path: Path) -> None:
    """Stopped in the middle of a training and before the next step: in the end the files are those of a run at once."""

    def stops_at(place: str, said: list[str]) -> Progress:
        def progress(text: str, _: Row | None) -> None:
            said.append(text)
            if text.startswith(place):
                raise KeyboardInterrupt

        return progress

    run = {**SETTINGS, "folder": tmp_path, "steps": ["prune", "ptq"]}
    for place, there in (("prune 50 %: epoch", {"float"}), ("ptq: begins", {"float", "prune-50"})):
        with pytest.raises(KeyboardInterrupt):
            mt.shrink(wide, DATA, **run, progress=stops_at(place, []))
        assert {each.stem for each in tmp_path.iterdir()} == there
    said: list[str] = []
    mt.shrink(wide, DATA, **run, progress=stops_at("never", said))
    assert [text for text in said if "begins" in text] == ["ptq: begins"]
    before = contents(done.best.file.parent)
    assert all(before[name] == content for name, content in contents(tmp_path).items())


KILLED = """
import sys, time
from pathlib import Path
from microtune.training import artefacts
import onnx
first = onnx.helper.make_model(onnx.helper.make_graph([], "a" * 200_000, [], []))
goal = Path(sys.argv[1])
number = 0
while True:
    number += 1
    artefacts.write(goal, first, {"key": number, "long": "x" * 300_000})
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    """A process that writes over and over is killed outright at many moments; each time what is there can be read."""
    goal = tmp_path / "step.onnx"
    environment = {**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])}
    rng, seen = np.random.default_rng(0), []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(goal)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(float(rng.uniform(0.0, 0.03)))
        os.kill(process.pid, signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split("\n") if line.strip().isdigit()]
        process.wait()
        found = artefacts.read(goal)
        assert found is not None, "the file is damaged"
        onnx.checker.check_model(found[0]) if found[0].graph.output else None
        # what was reported as written is there, or the one after it
        assert found[1]["key"] >= (told[-1] if told else 1)
        seen.append(found[1]["key"])
    artefacts.sweep(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["step.onnx"], "parts are swept away"


HOLDS = """
import sys, time
from pathlib import Path
from microtune.training.alone import alone_in
with alone_in(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_a_folder_is_told_who_runs_there(given: mt.Graph, tmp_path: Path) -> None:
    """Refused while the other lives, with nothing written; when it was killed, its lock is taken over."""
    environment = {**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None and process.stdout.readline() == b"in\n"
    before = contents(tmp_path)
    with pytest.raises(TrainingError, match=rf"process {process.pid} on .*, since .*; wait until it ends") as caught:
        mt.shrink(given, DATA, **SETTINGS, folder=tmp_path, steps=[])
    assert str(tmp_path) in str(caught.value) and contents(tmp_path) == before
    process.kill()
    process.wait()
    process.stdout.close()
    assert list(before) == [".running"] and contents(tmp_path) == before, "what a killed run leaves behind"
    mt.shrink(given, DATA, **SETTINGS, folder=tmp_path, steps=[])
    assert list(contents(tmp_path)) == ["float.onnx"]


def test_damaged_or_foreign_files_are_made_again(done: Shrunk, given: mt.Graph, tmp_path: Path) -> None:
    """Half a file, and another step's: it is done again, and the same comes of it."""
    folder = tmp_path / "copy"
    shutil.copytree(done.best.file.parent, folder)
    target = folder / "prune-50-ptq.onnx"
    whole = artefacts.read(target)
    assert whole is not None
    for content in (target.read_bytes()[: target.stat().st_size // 2], (folder / "float.onnx").read_bytes()):
        target.write_bytes(content)
        mt.shrink(given, DATA, **SETTINGS, folder=folder, steps=["prune", "ptq"])
        again = artefacts.read(target)
        assert again is not None and again[1] == whole[1]


def refused(match: str, model: Any, data: Any = DATA, **changes: Any) -> None:
    with pytest.raises(MicrotuneError, match=match) as caught:
        mt.shrink(model, data, **{**SETTINGS, "folder": "never made", **changes})
    assert "\n" not in str(caught.value)
    assert not Path("never made").exists()


def test_wrong_data_are_refused_in_a_sentence(wide: nn.Module, done: Shrunk, tmp_path: Path) -> None:
    x, y = DATA
    refused("data: y holds classes 0 to 3; the module has 0 to 2", wide, (x, np.where(y == 2, 3, y)))
    refused("data: x holds 20 samples; at least 40", wide, (x[:20], y[:20]))
    refused("data: x holds 300 samples and y 299", wide, (x, y[:-1]))
    refused(r"test: x has the shape \(500, 11\); \(samples, 12\) is needed", wide, test=(TEST[0][:, :11], TEST[1]))
    refused("validation: x holds .* not finite", wide, validation=(x * np.nan, y))
    refused("data must be a pair", wide, x)
    refused("y holds 1 values per sample; the module has 3 outputs", wide, (x, y), loss="mse")
    refused("no step 'quantise'", wide, steps=["quantise"])
    refused("a list of some of distil", wide, again="qat")
    refused("ptq is to be done again and is left out", wide, again=["ptq"], steps=["prune"])
    refused("data: y holds text, such as '[ab]'; .* return_inverse", wide, (x, np.array(["b", "a", "b"])[y]))
    refused("data: all samples are of one class", wide, (x, 0 * y))
    refused("validation: x holds 3 samples; at least 8", wide, validation=(x[:3], y[:3]))
    refused("test: x holds 7 samples; at least 8", wide, test=(x[:7], y[:7]))
    refused("limit=-1", wide, limit=-1)
    refused("channels=", wide, channels=(0.5, 0.5))
    odd: tuple[Any, ...] = (None, 3, "a", [None])
    for name in ("limit", "channels", "steps", "again", "epochs", "lr", "batch", "seed"):
        for value in odd if name in ("channels", "steps", "again") else (None, "a", float("nan"), -1):
            refused(f"{name}(=|: )", wide, **{name: value})
    refused("folder=None: a path", wide, folder=None)
    refused("no image is linked", wide, core="host")
    forest = RandomForestClassifier(3, max_depth=3, random_state=0).fit(x, y)
    refused("'RandomForestClassifier' has trees", forest)
    refused("is int8 already, .* bytes of flash on cortex-m4: .* begin with a float net", done.best.file)


def test_files_are_readable_and_what_cannot_be_written_is_said(done: Shrunk, wide: nn.Module, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert {each.file.stat().st_mode for each in done.table} == {plain.stat().st_mode}
    (tmp_path / "float.onnx").mkdir()
    with pytest.raises(
        mt.TrainingError, match=r"float.onnx: Is a directory. The files of the steps before are as they"
    ):
        mt.shrink(wide, DATA, **SETTINGS, folder=tmp_path, steps=[])


def test_a_module_that_ends_in_a_softmax_gives_it_up(wide: nn.Module, tmp_path: Path) -> None:
    found = mt.shrink(nn.Sequential(wide, nn.Softmax(1)), DATA, **{**SETTINGS, "test": None}, folder=tmp_path, steps=[])
    assert found.best.step == "float" and found.base.cost.test is None
    assert not any(node.op == "softmax" for node in found.graph.nodes)
    assert "softmax at the end" in found.notes[0]


def test_values_are_judged_by_the_variance_they_explain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype("f4")
    weight = rng.normal(size=(1, 4)).astype("f4")
    net = nn.Linear(4, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weight))
        net.bias.zero_()
    y = x @ weight.T + 0.5 * rng.normal(size=(60, 1))
    found = mt.shrink(net, (x, y), loss="mse", folder=tmp_path, steps=[], validation=(x, y))
    residual = ((y - x @ weight.T) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert found.base.cost.validation == pytest.approx(100 * (1 - residual), abs=1e-3)
    assert any("cannot tell" in each for each in found.notes), "60 samples are fewer than a point needs"


def test_machines_get_all_figures(done: Shrunk) -> None:
    found = json.loads(json.dumps(figures(done)))
    assert found["best"] == done.best.step and len(found["table"]) == 4 and found["table"][0]["kept"]
    assert found["table"][0]["code"] + found["table"][0]["weights"] == found["table"][0]["flash"]
    shown = str(replace(done, notes=("a note",)))
    assert "a note" in shown and "Which step earned its place" in shown
    assert str(done.best.file) in shown.replace("\n", "")
