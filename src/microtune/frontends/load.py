"""``load``: any supported model, whatever its format, as a graph ready to plan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from microtune.compress.folding import fold
from microtune.errors import ModelError
from microtune.ir import Graph, verify

SOURCES = "an .onnx or .tflite file, an onnx.ModelProto, a torch.nn.Module, a fitted scikit-learn estimator"
_HINTS = {
    **dict.fromkeys((".pt", ".pth"), "make the module in Python, load its state, and pass it with example="),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), "load the estimator in Python and pass it"),
    **dict.fromkeys((".h5", ".keras", ".pb"), "tf2onnx converts it to .onnx"),
}


def _derives_from(source: object, module: str, name: str | None = None) -> bool:
    """Whether the source's class or a base of it comes from a package, which is not imported for this."""
    return any(
        f"{base.__module__}.".startswith(f"{module}.") and (name is None or base.__name__ == name)
        for base in type(source).__mro__
    )


def _from_path(path: Path, name: str | None) -> Graph:
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".tflite"):
        raise ModelError(
            f"{path}: {_HINTS.get(suffix, f'files of type {suffix!r} are not read')}. Supported: {SOURCES}"
        )
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if suffix == ".tflite":
        from microtune.frontends.tflite import from_tflite, read_tflite

        return from_tflite(read_tflite(path), name or path.stem)
    from microtune.frontends.onnx import from_onnx, read_onnx

    return from_onnx(read_onnx(path), name or path.stem, path.parent)


def _from_source(source: Any, example: Any, name: str | None) -> Graph:
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source), name)
    if _derives_from(source, "onnx", "ModelProto"):
        from microtune.frontends.onnx import from_onnx

        return from_onnx(source, name)
    if _derives_from(source, "torch.nn", "Module"):
        from microtune.frontends.torch import from_torch

        return from_torch(source, example, name)
    if _derives_from(source, "sklearn"):
        from microtune.frontends.sklearn import from_sklearn

        return from_sklearn(source, name)
    raise ModelError(f"cannot load {type(source).__name__!r} objects. Supported: {SOURCES}")


def _keeps_int8(source: Any, graph: Graph) -> bool:
    """Whether the file itself is int8, so that its arithmetic is to be kept to the last step."""
    is_tflite = isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".tflite"
    return is_tflite and any(tensor.dtype == "int8" for tensor in graph.tensors.values())


def load(source: Any, *, example: Any = None, name: str | None = None) -> Graph:
    """Read a trained model as a graph of one sample, constants folded; an int8 graph stays as its file has it.

    source: the path of an .onnx or .tflite file, an ``onnx.ModelProto``, a ``torch.nn.Module`` or a fitted scikit-learn
    estimator. example: for a module, an input of one sample or a batch; others do without. name: the graph's
    name; default is that of the file, the model or the class.

    Raises ModelError, and nothing else, for whatever is unreadable, damaged or not supported.
    """
    try:
        graph = verify(_from_source(source, example, name))
        return graph if _keeps_int8(source, graph) else fold(graph)
    except ModelError:
        raise
    except Exception as error:
        # parsers meet damaged files in many ways; this is the one border where they all become one error
        what = source if isinstance(source, str | os.PathLike) else f"the {type(source).__name__}"
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"cannot read {what}: damaged or not a valid model ({type(error).__name__}: {reason})"
        ) from error
