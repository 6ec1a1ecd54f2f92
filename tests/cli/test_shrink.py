"""A2, A3: ``microtune shrink`` takes files and modules, prints its table or JSON, and refuses in a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from microtune.cli import app
from microtune.training import recipe

pytest.importorskip("torch")

MODULE = """
import torch
from torch import nn

def made():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    with torch.no_grad():  # the class is the sign of the first input
        for each, outputs in ((net[0], 2), (net[2], 2)):
            each.bias.zero_()
            each.weight[:outputs] = 0
        net[0].weight[0, 0], net[0].weight[1, 0] = 1, -1
        net[2].weight[0, 0] = net[2].weight[1, 1] = 1
        net[4].weight.zero_()
        net[4].weight[1, 0] = net[4].weight[0, 1] = 1
    return net

net = made()
nothing = 3
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["shrink", *(str(each) for each in arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("shrink")
    (found / "mine.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    for name, count in (("data", 200), ("test", 300)):
        x = rng.normal(size=(count, 6)).astype("f4")
        np.savez(found / f"{name}.npz", x=x, y=(x[:, 0] > 0).astype(int))
    np.savez(found / "no_y.npz", x=np.zeros((50, 6)))
    np.savez(found / "labels.npz", x=rng.normal(size=(50, 6)), y=np.arange(50))
    return found


def test_a_module_of_a_file_becomes_small_and_machines_read_it(folder: Path) -> None:
    options = "--data", folder / "data.npz", "--test", folder / "test.npz", "-o", folder / "out"
    first = run(f"{folder / 'mine.py'}:made", *options, "--skip", "prune", "--skip", "qat", "--json")
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)
    assert [each["step"] for each in found["table"]] == ["float", "ptq"] and found["best"] == "ptq"
    assert found["test_samples"] == 300 and found["table"][1]["test"] > 97
    assert found["times_smaller"] > 2 and Path(found["file"]).is_file()
    assert (folder / "out" / "float.onnx").is_file()
    # the file of the float net is a model as any other, and nothing is trained again for it
    shown = run(f"{folder / 'mine.py'}:net", *options, "--skip", "prune", "--skip", "qat")
    assert shown.exit_code == 0, shown.output
    # in a pipe, 80 columns wide: no figure is cut, and no sentence is broken
    sizes = f"{found['table'][0]['flash']:,}", f"{found['table'][0]['instructions']:,}"
    assert all(re.search(rf"^float .*\b{size}\b", shown.stdout, re.M) for size in sizes), shown.stdout
    assert "…" not in shown.stdout and re.search(
        r"^ptq: flash .* times smaller, .* float-ptq.onnx$", shown.stdout.replace(str(folder / "out") + "/", ""), re.M
    )
    assert re.search(r"^float: [\d,]+ bytes, [\d.]+ % right$", shown.stderr, re.M)


def test_whoever_stops_a_run_is_told_that_it_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "shrink", stopped)
    result = run(f"{folder / 'mine.py'}:net", "--data", folder / "data.npz", "-o", folder / "never")
    assert result.exit_code == 130 and result.stderr.startswith("stopped; the same command goes on")


def test_what_cannot_be_is_said_in_a_sentence(folder: Path) -> None:
    module, data = f"{folder / 'mine.py'}:net", ("--data", folder / "data.npz")
    cases = {
        "holds no y": (module, "--data", folder / "no_y.npz"),
        "y holds classes 0 to 49": (module, "--data", folder / "labels.npz"),
        "mine.py:NAME": (folder / "mine.py", *data),
        "again: ptq is to be done again and is left out": (module, *data, "--again", "ptq", "--skip", "ptq"),
        "no such step": (module, *data, "--skip", "prine"),
        "no step 'prine'": (module, *data, "--again", "prine"),
        "is no torch.nn.Module": (f"{folder / 'mine.py'}:nothing", *data),
        "defines no 'other'": (f"{folder / 'mine.py'}:other", *data),
        "no such file": (folder / "none.onnx", *data),
        "unknown loss": (module, *data, "--loss", "hinge"),
    }
    for words, arguments in cases.items():
        result = run(*arguments, "-o", folder / "never")
        assert result.exit_code == 1 and words in result.output, (words, result.output)
        assert "Traceback" not in result.output and not (folder / "never").exists()
