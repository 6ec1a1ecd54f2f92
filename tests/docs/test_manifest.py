"""docs/manifest.md names every field of a manifest and every kind of file of a package, and no others."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.ir import Graph, Node, Tensor, constant

PAGE = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text()
FILES, FIELDS = PAGE.split("## manifest.json")


def documented(text: str) -> set[str]:
    """The code spans of the first column of a page's tables."""
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Every leaf of a manifest, as the page writes it."""
    if path in ("learner", "optimizer", "scheme"):
        yield path if path == "learner" else f"{path}.name"
    elif path in ("targets_built", "files"):
        for each in value.values():
            yield from paths(each, f"{path}.{'TARGET' if path == 'targets_built' else 'FILE'}")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from paths(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and not path.endswith(".shape"):
        for each in value:
            yield from paths(each, f"{path}[]")
    else:
        yield path


def network() -> Graph:
    """2 inputs, 3 hidden units, 1 output."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (3, 2), "b1": (3,), "w2": (1, 3), "b2": (1,)}
    weights = [constant(name, rng.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()]
    nodes = [
        Node("dense", "a", ("x", "w1", "b1"), ("a",)),
        Node("relu", "h", ("a",), ("h",)),
        Node("dense", "y", ("h", "w2", "b2"), ("y",)),
    ]
    tensors = [Tensor("x", (2,)), Tensor("a", (3,)), Tensor("h", (3,)), Tensor("y", (1,)), *weights]
    return Graph("lamp", {each.name: each for each in tensors}, tuple(nodes), ("x",), ("y",))


USUAL = np.random.default_rng(1).uniform(size=(100, 2))
CHOICES: dict[str, dict[str, Any]] = {
    "adam": {"learn": mt.Full(), "optimizer": mt.Adam(), "inputs": [mt.Input("a", 0, 1, "m"), mt.Input("b")]},
    "lora": {
        "learn": mt.LoRA(1),
        "optimizer": mt.SGD(momentum=0.9),
        "learner": mt.Learner(
            fallback=(0.5,),
            profiles=2,
            recognise=True,
            contexts=(mt.Context("a", (0.5,)),),
            log=50,
            ewc_memory=1.0,
            sensors=mt.Sensors(drift=False),
            buffer=10,
            replay=2,
        ),
        "inputs": [mt.Input("a", 0, 1), mt.Input("b")],
        "calibration": USUAL,
    },
    "bayes": {"optimizer": mt.Bayes()},
}


@pytest.fixture(scope="module", params=CHOICES)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    plan = mt.plan(network(), **CHOICES[request.param])
    return mt.build(plan, tmp_path_factory.mktemp(request.param) / "lamp", targets=["host", "cortex-m4", "wasm32"])


def test_every_field_is_documented(package: mt.Package) -> None:
    manifest = json.loads((package.directory / "manifest.json").read_text())
    assert not set(paths(manifest)) - documented(FIELDS)


def test_every_documented_field_exists(package: mt.Package) -> None:
    missing = documented(FIELDS) - set(paths(package.manifest))
    without_state = {f"tensors.optimizer[].{key}" for key in ("name", "shape", "dtype", "offset")}
    absent = without_state if package.manifest["optimizer"]["name"] == "Bayes" else set()
    if not package.manifest["sensors"]:
        absent |= {each for each in documented(FIELDS) if each.startswith("sensors[]")}
    assert not package.manifest["memory"]["packed"]  # tests/compiler/test_pack_weights.py has some
    absent |= {each for each in documented(FIELDS) if each.startswith("memory.packed[]")}
    assert missing == absent


def test_settings_are_the_fields_of_their_classes(package: mt.Package) -> None:
    for key in ("optimizer", "scheme"):
        name, *rest = package.manifest[key]
        if package.manifest[key]["name"] == "residual head":
            assert package.manifest["optimizer"]["name"] == "Bayes" and not rest
            continue
        settings = getattr(mt, package.manifest[key]["name"])
        assert name == "name" and rest == [each.name for each in dataclasses.fields(settings)]
    assert list(package.manifest["learner"]) == [each.name for each in dataclasses.fields(mt.Learner)]


def test_every_file_is_documented_and_summed(package: mt.Package) -> None:
    known = [each.replace("NAME", "lamp").replace("lib/", "lib/*") for each in documented(FILES)]
    present = {
        path.relative_to(package.directory).as_posix() for path in package.directory.rglob("*") if path.is_file()
    }
    assert not {file for file in present if not any(fnmatch.fnmatch(file, pattern) for pattern in known)}
    assert set(package.manifest["files"]) == present - {"manifest.json"}
    for file, digest in package.manifest["files"].items():
        assert hashlib.sha256((package.directory / file).read_bytes()).hexdigest() == digest


def test_figures_agree_with_each_other(package: mt.Package) -> None:
    """What the page says of them, from the other fields."""
    manifest = package.manifest
    fields, people, memory = manifest["layout"]["fields"], manifest["layout"]["people"], manifest["memory"]
    learner = manifest["learner"]
    assert people["count"] == learner["profiles"] * math.prod(len(each["edges"]) + 1 for each in learner["contexts"])
    end = 0
    for field in fields:
        if end == people["offset"] + people["bytes"]:
            end += (people["count"] - 1) * people["bytes"]
        assert field["offset"] == end
        end += field["bytes"]
    assert end == manifest["layout"]["bytes"]
    assert manifest["layout"]["saved"] in {field["offset"] for field in fields}
    assert memory["ram"] == 4 + end + memory["stack"]
    assert memory["arena_lower_bound"] <= memory["arena"]
    assert all(span["offset"] + span["bytes"] <= memory["arena"] for span in memory["timeline"])
    core = manifest["targets_built"]["cortex-m4"]
    assert (core["flash"], core["stack"]) == (memory["flash"], memory["stack"])


def test_base_weights_lie_where_the_manifest_says(package: mt.Package) -> None:
    weights, graph = (package.directory / "lamp_base.bin").read_bytes(), network()
    found = {
        each["name"]: np.frombuffer(weights, each["dtype"], int(np.prod(each["shape"])), each["offset"]).reshape(
            each["shape"]
        )
        for each in package.manifest["tensors"]["base"]
    }
    for each in graph.constants:
        np.testing.assert_array_equal(found[each.name], each.data)
    assert sum(each.nbytes for each in found.values()) == len(weights)
