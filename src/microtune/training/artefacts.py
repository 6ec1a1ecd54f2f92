"""What a recipe keeps on disk: each step one .onnx file, written whole or not at all, that knows what it came from.

A step's record stands in the file's own metadata, so that there is one file to write and one rename that makes it the
new one: whoever is stopped at whatever moment finds the old file or the new one, never a half and never two that do
not belong together.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from microtune.errors import TrainingError
from microtune.ir import Graph

if TYPE_CHECKING:
    import onnx

RECORD = "microtune.shrink"
"""Key of the metadata that holds a step's record, as JSON."""
KEPT = "kept.json"
"""The file of a folder that names the steps that earned their place."""
_PART = ".part"  # the end of a file that is being written; what was left behind by a kill is removed by the next run


def write(path: Path, model: onnx.ModelProto, record: Mapping[str, Any]) -> None:
    """Put a model at ``path`` with a record of how it was made. Until it is complete the file there stays as it was."""
    import onnx

    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    others = [each for each in stored.metadata_props if each.key != RECORD]
    del stored.metadata_props[:]
    stored.metadata_props.extend(others)
    kept = {**record, "graph": _graph_sum(model)}
    stored.metadata_props.add(key=RECORD, value=json.dumps(kept, sort_keys=True))
    replace_file(path, stored.SerializeToString(deterministic=True))


def replace_file(path: Path, content: bytes) -> None:
    """Write beside the goal, wait for the disk, rename: the goal is the old file until it is the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}{_PART}")
    try:
        with part.open("xb") as file:  # may be read by whoever may read new files here
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[onnx.ModelProto, dict[str, Any]] | None:
    """A model and its record; None where there is no file, or none that a recipe wrote, or a damaged one."""
    import onnx

    try:
        model = onnx.load_model_from_string(path.read_bytes())
        record = next(each.value for each in model.metadata_props if each.key == RECORD)
        found = json.loads(record)
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception:  # parsers meet damaged files in many ways; each of them means that the step is done again
        return None
    whole = isinstance(found, dict) and found.get("graph") == _graph_sum(model)
    return (model, found) if whole else None


def remember(folder: Path, names: Sequence[str]) -> None:
    """Write down which files of a folder a whole run has kept."""
    replace_file(folder / KEPT, json.dumps({"kept": list(names)}, indent=2).encode())


def kept_in(folder: Path) -> set[str] | None:
    """The names of the files that a recipe kept; None for a folder that knows of none."""
    try:
        names = json.loads((folder / KEPT).read_bytes())["kept"]
        return {each for each in names if (folder / each).is_file()} or None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _graph_sum(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def prepare(folder: Path) -> None:
    """Make the folder where it is not. Raises TrainingError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be a folder for the steps: {error.strerror}") from error


def sweep(folder: Path) -> None:
    """Remove what a run that was stopped left unfinished."""
    for part in folder.glob(f".*{_PART}"):
        part.unlink(missing_ok=True)


def key_of(*parts: Any) -> str:
    """What a step depends on, as 64 digits: graphs, arrays, and settings that JSON has words for."""
    sums = hashlib.sha256()
    for part in parts:
        if isinstance(part, Graph):
            _add_graph(sums, part)
        elif isinstance(part, np.ndarray):
            sums.update(f"{part.dtype.str}{part.shape}".encode())
            sums.update(np.ascontiguousarray(part).data)
        else:
            sums.update(json.dumps(part, sort_keys=True).encode())
        sums.update(b"\0")
    return sums.hexdigest()


def _add_graph(sums: Any, graph: Graph) -> None:
    """What a graph computes, whatever it and its tensors are called."""
    places = {name: index for index, name in enumerate(graph.inputs)}
    for node in graph.nodes:
        for name in (*node.inputs, *node.outputs):
            tensor = graph.tensor(name)
            places.setdefault(name, len(places))
            sums.update(f"{places[name]} {tensor.shape} {tensor.dtype} ".encode())
            if tensor.data is not None:
                sums.update(np.ascontiguousarray(tensor.data).data)
            if tensor.quantization is not None:
                for each in (tensor.quantization.scale, tensor.quantization.zero_point):
                    sums.update(np.ascontiguousarray(each).data)
        sums.update(f"{node.op} {sorted(node.attributes.items())} ".encode())
    sums.update(str([places.get(name) for name in graph.outputs]).encode())
