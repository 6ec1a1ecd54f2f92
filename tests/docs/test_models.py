"""docs/models.md lists exactly the operators, estimators and file types that are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import microtune as mt
from microtune.frontends import onnx, sklearn, sklearn_trees, tflite_operators
from microtune.frontends.onnx_constants import CONSTANT_RULES
from microtune.frontends.onnx_operators import CONVERTERS

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
ROWS = [row.split(" | ") for row in PAGE.split("## Operators")[1].split("\n\n")[2].splitlines()[2:]]


def column(index: int) -> list[str]:
    return [name for row in ROWS for name in re.findall(r"`(\w+)`", row[index])]


def test_tflite_operators() -> None:
    assert sorted(column(1)) == sorted(tflite_operators.CONVERTERS)


def test_onnx_operators() -> None:
    assert sorted(column(2)) == sorted(CONVERTERS)


def test_onnx_operators_on_constants() -> None:
    (sentence,) = re.findall(r"On constants alone ONNX may use (.*?) as well", PAGE)
    found = set(re.findall(r"`(\w+)`", sentence))
    assert found == {"Constant", *CONSTANT_RULES} - set(CONVERTERS)
    assert found | set(CONVERTERS) == set(onnx.SUPPORTED)
    assert f"operators of version {onnx.OLDEST_OPSET} and later" in PAGE


def test_estimators() -> None:
    (paragraph,) = re.findall(r"^scikit-learn: (.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    read = {*sklearn.MODELS, *sklearn_trees.TREES, *sklearn.SCALERS, "Pipeline"}
    assert set(re.findall(r"`(\w+)`", paragraph)) == read


@pytest.mark.parametrize("suffix", [".h5", ".keras", ".pb", ".pt", ".pth"])
def test_other_files_are_refused_with_advice(suffix: str) -> None:
    assert f"`{suffix}`" in PAGE
    with pytest.raises(mt.ModelError, match=r"Supported: .*\.tflite"):
        mt.load(f"net{suffix}")
