"""E1: every command does what it says, speaks JSON, and answers bad input with one sentence."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.main import get_command
from typer.testing import CliRunner, Result

import microtune as mt
from microtune import gallery
from microtune.cli import app
from microtune.compiler.show import STAGES
from microtune.targets.catalogue import boards, targets
from microtune.targets.power import with_unit

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def figures(*arguments: object) -> Any:
    """What a command prints with ``--json``, which must be JSON and nothing else."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file: 2 inputs, 4 hidden units, ReLU, 1 output."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (2, 4), "b1": (4,), "w2": (4, 1), "b2": (1,)}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["a"]),
            helper.make_node("Relu", ["a"], ["h"]),
            helper.make_node("Gemm", ["h", "w2", "b2"], ["y"]),
        ],
        "lamp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(rng.normal(size=shape).astype("f4"), name) for name, shape in shapes.items()],
    )
    path = tmp_path_factory.mktemp("model") / "lamp.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def package(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("package") / "lamp"
    built = figures("build", model, "--out", out, "--buffer", 10, "--target", "host")
    assert built["package"] == str(out)
    return out


def test_plan_shows_the_same_figures_to_people_and_machines(model: Path) -> None:
    found, shown = figures("plan", model), run("plan", model).output
    named = {"ram", "flash", "stack", "arena", "bound", "parameters", "optimizer", "buffers", "timeline"}
    assert named | {"packed", "saved"} == set(found)
    assert f"{found['ram']:,}" in shown and f"{found['flash']:,}" in shown
    assert found["timeline"] and all(span["name"] in shown for span in found["timeline"])
    # programs that take no memory of the arena, as the last layer of a prediction, have no table
    for title in ("training step", "at the peak"):
        assert title in shown


def test_what_learns_and_how_reaches_the_plan(model: Path, tmp_path: Path) -> None:
    """Parameters in bytes, by hand: head 5, everything 17, biases 5, rank-1 adapters 6 + 5 floats."""
    for learn, floats in {"head": 5, "head:2": 17, "full": 17, "bias": 5, "lora:1": 6 + 5}.items():
        assert figures("plan", model, "--learn", learn)["parameters"] == 4 * floats, learn
    state = {name: figures("plan", model, "--optimizer", name)["optimizer"] for name in ("sgd", "momentum:0.1", "adam")}
    assert state == {"sgd": 0, "momentum:0.1": 4 * 5, "adam": 4 * (2 * 5 + 2)}
    assert figures("plan", model, "--buffer", 7)["buffers"] == 4 * 7 * (4 + 2)  # a sample: cut, target, time
    kept = figures("plan", model, "--buffer", 7, "--learner", "replay=3,profiles=2,contexts=0:0.5")["buffers"]
    assert kept == 4 * (7 + 3) * (4 + 2) * 2 * 2  # of each profile in each context
    assert figures("plan", model, "--optimizer", "bayes")["buffers"] > 0
    known = np.repeat([0, 1], [30, 10])  # windows that are well, and a known fault
    np.savez(tmp_path / "well.npz", x=np.random.default_rng(0).normal(size=(40, 2)) + 3 * known[:, None], y=known)
    detector = (
        "--optimizer",
        "mahalanobis:40",
        "--loss",
        "binary_cross_entropy",
        "--calibration",
        tmp_path / "well.npz",
    )
    assert figures("plan", model, *detector)["parameters"] == 4 * (1 + 1 + 2)  # mean, precision, limits


def test_build_leaves_a_package(package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["name"] == "lamp" and manifest["learner"]["buffer"] == 10
    assert (package / "lamp.h").exists() and (package / manifest["targets_built"]["host"]["file"]).exists()


MARKS = {"graph": "dense(x", "backward": "y.grad", "schedule": "step:", "memory": "lower bound", "c": "lamp_predict("}


@pytest.mark.parametrize("stage", STAGES)
def test_build_prints_any_stage(model: Path, tmp_path: Path, stage: str) -> None:
    out = tmp_path / "lamp"
    found = figures("build", model, "-o", out, "--show", stage)
    assert MARKS[stage] in found[stage]
    if stage == "c":
        assert found["c"].rstrip("\n") == (out / "lamp.c").read_text().rstrip("\n")
        shown = run("build", model, "-o", out, "--show", stage).output
        assert shown.startswith(found[stage]) and f"start with {out.name}.h" in " ".join(shown.split())


def test_emulate_counts_instructions(package: Path) -> None:
    found = figures("emulate", package, "--uses", 20, "--target", "cortex-m4", "--target", "cortex-m33")
    assert set(found) == {"cortex-m4", "cortex-m33"}
    for cost in found.values():
        # 17 multiply-adds at the least
        assert 17 < cost["predict"]["instructions"] < cost["update"]["instructions"]
        assert cost["slice"]["instructions"] < cost["update"]["instructions"] and cost["slices"] > 1
        assert cost["flash"]["bytes"] == sum(cost["flash"]["sections"].values())
        assert cost["ram"]["bytes"] == cost["ram"]["struct"] + cost["ram"]["static"] + cost["stack"]["bound"]
        assert cost["stack"]["measured"] <= cost["stack"]["bound"] <= 1.5 * cost["stack"]["measured"]
        assert cost["symbols"][0]["size"] >= cost["symbols"][-1]["size"] and "board" not in cost
    # the same uses cost the same; energy and time are those given
    chosen = ("--uses", 20, "--energy", "100pJ", "--clock", "1MHz")
    update = figures("emulate", package, *chosen)["cortex-m4"]["update"]
    assert update["instructions"] == found["cortex-m4"]["update"]["instructions"]
    assert update["joules"] == pytest.approx(100e-12 * update["instructions"])
    shown = run("emulate", package, *chosen).output
    assert f"{update['instructions']:,}" in shown and "100 pJ an instruction, 1 MHz" in shown


def test_emulate_counts_a_network_that_only_predicts(model: Path, tmp_path: Path) -> None:
    run("compile", model, "-o", tmp_path / "net", "--target", "cortex-m0")
    found = figures("emulate", tmp_path / "net", "--target", "cortex-m0")["cortex-m0"]
    # 12 multiply-adds at the least; 17 weights and biases
    assert 12 < found["instructions"] <= found["most"] and found["flash"] > found["weights"] == 4 * 17
    assert f"{found['most']:,}" in run("emulate", tmp_path / "net", "--target", "cortex-m0").output
    result = run("emulate", tmp_path / "net", "--target", "cortex-m4")
    assert result.exit_code == 1 and "is compiled for cortex-m0, not for cortex-m4" in " ".join(result.output.split())


def test_emulate_says_whether_a_board_has_room(package: Path) -> None:
    found = figures("emulate", package, "--uses", 20, "--target", "microbit-v1")["microbit-v1"]
    assert found["board"] == {"fits": True, "flash": 256 * 1024, "ram": 16 * 1024} and found["clock"] == 16e6
    shown = run("emulate", package, "--uses", 20, "--target", "microbit-v1").output
    assert f"Fits: {found['flash']['bytes']:,} of 262,144 bytes of flash" in shown
    assert found["symbols"][0]["name"] in shown and "stack, measured by painting" in shown


def test_targets_lists_the_catalogue() -> None:
    found, shown = figures("targets"), run("targets").output
    every = (*targets(), *boards())
    known = {each.name: each.description for each in every}
    assert {name: each["description"] for name, each in found.items()} == known
    assert (found["nano-33-ble"]["flash"], found["nano-33-ble"]["ram"]) == (1 << 20, 1 << 18)
    for each in every:
        assert each.name in shown and (found[each.name]["power"] is None) == (each.power is None)
        if each.power is not None:
            assert found[each.name]["power"]["energy"] == each.power.joules
            assert each.board or with_unit(each.power.joules, "J") in shown


def test_demo_runs_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One household on one core; the whole of it is in tests/examples/test_toaster.py."""
    example = gallery.load_example("toaster")
    monkeypatch.setattr(example, "demo", functools.partial(example.demo, households=1))
    monkeypatch.setattr(example, "CORES", ("cortex-m4",))
    result = run("demo", "toaster", "--out", tmp_path / "toaster")
    assert result.exit_code == 0, result.output
    for title in ("A household and its new toaster", "this learner", "folklore recipe", "What it costs", "flash"):
        assert title in result.output
    assert (tmp_path / "toaster" / "toaster.h").exists() and (tmp_path / "toaster_learning.png").exists()


BAD = {
    "no file": ("plan missing.onnx", "missing.onnx: no such file"),
    "no model file": ("plan notes.txt", "type '.txt' are not read"),
    "a damaged file": ("plan damaged.onnx", "damaged.onnx"),
    "a folder": ("plan .", "not read"),
    "unknown scheme": ("plan MODEL --learn most", "Known: full, head, bias, normaffine, adapter, lora, sparse"),
    "scheme's number": ("plan MODEL --learn head:two", "'two' is not a whole number"),
    "half a layer": ("plan MODEL --learn head:1.5", "'1.5' is not a whole number"),
    "endless layers": ("plan MODEL --learn head:inf", "'inf' is not a whole number"),
    "too many layers": ("plan MODEL --learn head:9", "use 1 to 2"),
    "a number too many": ("plan MODEL --learn full:3", "takes no number"),
    "rank too high": ("plan MODEL --learn lora:4", "the rank must be below 2"),
    "unknown loss": ("plan MODEL --loss mae", "Known: mse, huber"),
    "loss for another task": ("plan MODEL --loss cross_entropy", "binary_cross_entropy"),
    "unknown optimiser": ("plan MODEL --optimizer lion", "Known: sgd, momentum"),
    "optimiser's number": ("plan MODEL --optimizer sgd:fast", "'fast' is not a number"),
    "rate that is none": ("plan MODEL --optimizer adam:nan", "lr must be"),
    "setting's number": ("plan MODEL --learner replay=few", "replay=few: 'few' is not a whole number"),
    "what looks like markup": ("plan MODEL --learner [/x]", "unknown setting '[/x]' of the learner"),
    "an input without a name": ("plan MODEL --learner contexts=hour:12", "or by place, 0 to "),
    "no samples": ("plan MODEL --calibration none.npz", "microtune: none.npz: No such file or directory"),
    "no buffer": ("plan MODEL --buffer 0", "must be 1 to 65535"),
    "updates too rare": ("plan MODEL --buffer 5 --every 6", "more samples than are kept"),
    "impossible RAM": ("plan MODEL --ram 100", "bytes of RAM"),
    "impossible flash": ("plan MODEL --flash 1KB", "bytes of flash"),
    "unreadable budget": ("plan MODEL --ram plenty", "such as '128KB'"),
    "no budget": ("plan MODEL --ram 0", "above 0"),
    "name": ("build MODEL -o 1lamp", "cannot name a device"),
    "C keyword": ("build MODEL -o for", "cannot name a device"),
    "a word of the generated C": ("build MODEL -o base", "means something else in the generated C"),
    "integers of a float model": ("plan MODEL --precision int8", "--calibration FILE.npz"),
    "somebody's folder": ("build MODEL -o occupied", "is not a microtune package"),
    "unknown target": ("build MODEL -o lamp --target z80", "Known targets: host"),
    "unknown stage": ("build MODEL -o lamp --show magic", "Known: graph, backward"),
    "a file in the way": ("build MODEL -o notes.txt/lamp", "notes.txt"),
    "no package": ("emulate nowhere", "no manifest.json"),
    "a folder, no package": ("emulate occupied", "no manifest.json"),
    "a network, no package": ("simulate net", "only predicts"),
    "a network that cannot be read": ("emulate net", "net/network.json cannot be read"),
    "no emulated core": ("emulate PACKAGE --target host", "emulated are cortex-m0, "),
    "a core for its vendor's tools": ("emulate PACKAGE --target esp32-s3", "neither compiled for nor emulated here"),
    "unreadable energy": ("emulate PACKAGE --energy little", "such as '150pJ'"),
    "unreadable clock": ("emulate PACKAGE --clock 64", "such as '64MHz'"),
    "unknown core": ("emulate PACKAGE --target z80", "Known targets: host"),
    "unknown example": ("demo kettle", "there is no example 'kettle'. Examples: "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_a_sentence(
    case: str, model: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("a note")
    Path("damaged.onnx").write_bytes(model.read_bytes()[:99])
    Path("occupied").mkdir()
    Path("occupied/precious").touch()
    Path("net").mkdir()
    Path("net/network.json").touch()
    before = sorted(tmp_path.rglob("*"))
    line, answer = BAD[case]
    result = run(*line.replace("MODEL", str(model)).replace("PACKAGE", str(package)).split())
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    assert result.stderr.startswith("microtune: ") and result.stderr.count("\n") == 1
    assert answer in result.stderr
    assert sorted(tmp_path.rglob("*")) == before, "a refused command leaves nothing behind"


@pytest.mark.parametrize(
    "line", ["plan", "build", "plan MODEL --colour red", "toast", "emulate PACKAGE --uses 0", "plan MODEL --buffer few"]
)
def test_bad_usage_shows_the_usage(line: str) -> None:
    result = run(*line.split())
    assert result.exit_code == 2 and "Usage:" in result.stderr and "Traceback" not in result.output


def test_compile_writes_a_network_that_only_predicts(model: Path, tmp_path: Path) -> None:
    found = figures("compile", model, "-o", tmp_path / "eye", "--target", "cortex-m0", "--target", "host")
    assert found["flash"]["cortex-m0"] > found["weights"] > 0 and not found["cmsis_nn"]
    assert mt.Network(tmp_path / "eye").run([0.5, 1.0]).shape == (1,)
    refused = run("compile", model, "-o", tmp_path / "other", "--cmsis-nn", tmp_path)
    assert refused.exit_code == 1 and "is not CMSIS-NN" in refused.stderr and "Traceback" not in refused.output
    assert not (tmp_path / "other").exists()


def test_readme_shows_options_that_exist() -> None:
    commands = getattr(get_command(app), "commands", {})
    rows = re.findall(r"^\| `microtune (\w+)([^`]*)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == set(commands)
    for name, rest in rows:
        known = {text for parameter in commands[name].params for text in parameter.opts}
        assert set(re.findall(r"(?<!\S)-{1,2}[a-z-]+", rest)) <= known, name


def test_every_command_speaks_json_and_helps() -> None:
    for name, command in getattr(get_command(app), "commands", {}).items():
        assert "--json" in {text for parameter in command.params for text in parameter.opts}
        assert command.help and run(name, "--help").exit_code == 0


def test_quantises_a_float_model(model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=x)
    found, shown = (
        figures("quantize", model, "--data", tmp_path / "samples.npz"),
        run("quantize", model, "--data", tmp_path / "samples.npz").output,
    )
    assert found["samples"] == 40 and found["layers"][-1]["sqnr"] > 20
    assert all(layer["name"] in shown for layer in found["layers"])
    floats = figures("plan", model)
    stored = figures("plan", model, "--calibration", tmp_path / "samples.npz", "--precision", "mixed")
    # four int8 weights and an int32 bias, where there were five floats
    assert (stored["parameters"], floats["parameters"]) == (4 + 4, 4 * 5)


def test_a_file_without_samples_is_refused(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", z=np.zeros(3))
    for arguments in (("quantize", model, "--data"), ("plan", model, "--calibration")):
        result = run(*arguments, tmp_path / "samples.npz")
        assert result.exit_code == 1 and "holds no x, but z" in result.stderr
