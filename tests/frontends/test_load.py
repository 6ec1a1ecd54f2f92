"""Dispatch of ``load``: by what the source is, without importing frameworks that are not used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microtune.errors import ModelError
from microtune.frontends import load

PRINT_FRAMEWORKS = """
import sys
from microtune.frontends import load
import onnx
from onnx import TensorProto, helper
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", values[:1], values[1:])
load(helper.make_model(graph))
print(sorted({"torch", "sklearn"} & set(sys.modules)))
"""


def test_onnx_imports_neither_torch_nor_sklearn() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", PRINT_FRAMEWORKS], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "net.h5",
            r"tf2onnx.*Supported: an \.onnx or \.tflite file, an onnx.ModelProto, a torch.nn.Module, a fitted",
        ),
        ("net.pt", "pass it with example=.*Supported"),
        ("net.pkl", "load the estimator in Python"),
        ("net.xyz", "files of type '.xyz' are not read"),
        ("net", "files of type '' are not read"),
        ("missing.onnx", "no such file"),
        ("missing.tflite", "no such file"),
    ],
)
def test_files_that_are_not_read(tmp_path: Path, file: str, message: str) -> None:
    if not file.startswith("missing"):
        (tmp_path / file).write_bytes(b"TFL3")
    with pytest.raises(ModelError, match=message):
        load(tmp_path / file)


def test_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(ModelError, match="no such file"):
        load(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize("source", [None, 3, [1, 2], b"bytes", object(), {"w": 1}])
def test_other_objects_are_refused(source: object) -> None:
    name = type(source).__name__
    with pytest.raises(ModelError, match=f"cannot load '{name}' objects. Supported: an .onnx or .tflite file"):
        load(source)
