"""Read PyTorch modules through PyTorch's own ONNX exporter."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.onnx import from_onnx
from microtune.ir import Graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress, warnings and notes about packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def in_mode(module: Any, training: bool) -> Iterator[None]:
    """The module as it trains, or as it predicts (no dropout, fixed batch norm); every part is put back as it was."""
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was in before:
            part.training = was


def _first_sample(module: Any, example: Any) -> Any:
    """A batch of one from ``example``, which is a batch or, where the module takes it only so, one sample."""
    import torch

    parameter = next((item for item in module.parameters() if item.is_floating_point()), torch.zeros(1))
    try:
        x = example if isinstance(example, torch.Tensor) else torch.as_tensor(np.asarray(example))
    except (TypeError, ValueError) as error:
        raise ModelError(f"example is no tensor, and {type(example).__name__!r} cannot be made one: {error}") from error
    x = x.detach().to(device=parameter.device)
    if x.ndim == 0 or x.numel() == 0:
        raise ModelError(f"example has the shape {tuple(x.shape)}; one sample or a batch of samples is needed")
    # whole numbers are indices if the module takes them as such
    kinds = [parameter.dtype] if x.is_floating_point() else [torch.int64, parameter.dtype]
    shaped = [x[None]] if x.ndim == 1 else [x[:1], x[None]]
    candidates = [item.to(kind) for kind in kinds for item in shaped]
    failures = []
    for candidate in candidates:
        try:
            module(candidate)
            return candidate
        except Exception as error:
            failures.append(error)
    tried = " or ".join(str(tuple(candidate.shape)) for candidate in shaped)
    cause = failures[-len(shaped)]
    raise ModelError(f"{type(module).__name__} fails on an example of shape {tried}: {cause}") from cause


def _export(module: Any, x: Any) -> Any:
    import onnx
    import torch

    if importlib.util.find_spec("onnxscript") is not None:
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
        # the stub allows None, which is returned only where dynamo is False
        return program.model_proto  # type: ignore[union-attr]
    stream = io.BytesIO()  # the older exporter needs no further package
    # the stub wants a path; this exporter writes to a stream too
    torch.onnx.export(module, (x,), stream, dynamo=False, verbose=False)  # type: ignore[arg-type]
    return onnx.load_from_string(stream.getvalue())


def onnx_of(module: Any, example: Any) -> Any:
    """The onnx.ModelProto of a module in inference mode. ``example``: one sample or a batch, as a tensor or array.

    The module is left as it was. Raises ModelError without an example, when the module fails on it, and when PyTorch
    cannot export it.
    """
    import torch

    kind = type(module).__name__
    if example is None:
        raise ModelError(
            f"{kind}: give an example input, such as load(module, example=torch.zeros(1, 4)); its values do not matter"
        )
    with torch.no_grad(), in_mode(module, False), _quiet():
        x = _first_sample(module, example)
        try:
            return _export(module, x)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"PyTorch cannot export {kind} to ONNX: {lines[0]}") from error


def from_torch(module: Any, example: Any, name: str | None = None) -> Graph:
    """The graph of a module in inference mode. ``example``: one sample or a batch, as a tensor or array.

    The module is left as it was. Raises ModelError as ``onnx_of`` does, and for operators that are not supported.
    """
    return from_onnx(onnx_of(module, example), name or type(module).__name__)
