"""``mt.shrink``: the usual recipe. Float net, distil, prune, quantise, train with quantisation where that is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtune.compiler.program import without_final
from microtune.errors import ModelError, TrainingError
from microtune.frontends.load import load
from microtune.ir import Graph
from microtune.ops.trees import trees_of
from microtune.progress import Progress
from microtune.samples import Samples, split_samples
from microtune.training import artefacts, require
from microtune.training.alone import alone_in
from microtune.training.measured import core_of, flash_of
from microtune.training.samples import FEWEST as FEWEST_JUDGED
from microtune.training.samples import checked
from microtune.training.settings import number, pair_of
from microtune.training.steps import CHANNELS, FLOAT, STEPS, Recipe, Training
from microtune.training.table import Row, Shrunk
from microtune.tuning.losses import Loss, loss_of

FEWEST = 40
"""Samples at least: a fifth of them decide, and the rest must be enough to learn and to calibrate from."""
HELD_OUT = 0.2


@dataclass(frozen=True)
class _Taken:
    """The net as steps begin with it: a module, its graph, what makes its file, and what there is to say about it."""

    module: Any
    graph: Graph
    exported: Callable[[], Any]
    notes: tuple[str, ...] = ()


def shrink(
    model: Any,
    data: Any,
    *,
    folder: str | os.PathLike[str],
    test: Any = None,
    validation: Any = None,
    teacher: Any = None,
    loss: str | Loss = "cross_entropy",
    limit: float = 1.0,
    core: str = "cortex-m4",
    steps: Sequence[str] = STEPS,
    again: Sequence[str] = (),
    channels: Sequence[float] = CHANNELS,
    epochs: int = 8,
    lr: float = 1e-3,
    batch: int = 32,
    seed: int = 0,
    progress: Progress[Row] | None = None,
) -> Shrunk:
    """Make a trained float net small, and say after each step what it costs, how right it is, and whether it stays.

    model: the path of an .onnx or .tflite file, a float Graph, or a torch.nn.Module. data: (x, y): inputs (n, *input
    shape), and class indices (n,) or values (n, outputs). A fifth of them decides, unless ``validation`` has samples of
    its own; the rest is learnt and calibrates. test: samples that are only reported. teacher: a larger net; the recipe
    begins with learning from it, and what is pruned learns from it, else from the float net.

    Channels are pruned by each share of ``channels`` while at most ``limit`` points of the float net's accuracy on the
    validation samples are lost (of values: per cent of their variance explained). What is left becomes int8 by
    calibration and, where that loses too much or is in ``again``, by training with quantisation; where that loses too
    much still, the nets pruned less are tried. The result is the smallest net within the limit.

    folder: one .onnx file for each step, written whole or not at all, and the names of those kept. A step whose input,
    samples and settings are those of its file is not done again, unless it is in ``again``; ``steps`` leaves out what
    is not in it. Two runs in one folder at once are refused. epochs, lr, batch, seed: of each step that learns. core:
    what flash, RAM and instructions are of.

    A final softmax or sigmoid that the loss contains is left out of all nets. Raises TrainingError for samples and
    settings that do not fit, and for a step that fails, whose earlier file and those before it stay as they are.
    """
    require("mt.shrink", "torch")
    from microtune.training.fit import check_settings

    _check_steps(steps, again, channels)
    number("limit", limit, lambda points: 0 <= points <= 100, "points of accuracy that may be lost, 0 to 100")
    check_settings(epochs, lr, batch, seed)
    if not isinstance(folder, str | os.PathLike):
        raise TrainingError(f"folder={folder!r}: a path, where the files of the steps are to be")
    chosen, named = loss_of(loss), core_of(core)
    own = _own(model, named)
    fitting = _fitting(own, chosen, data)
    learnt, judged = _samples(fitting, data, validation, seed)
    held = None if test is None else fitting(test, "test", FEWEST_JUDGED)
    taken = _taken(own, learnt, chosen)
    chosen_steps = tuple(each for each in steps if each != "distil" or teacher is not None)
    place = Path(folder)
    artefacts.prepare(place)
    try:
        with alone_in(place):
            artefacts.sweep(place)
            recipe = Recipe(
                taken.module, place, chosen, limit, named, chosen_steps, tuple(again),
                Training(epochs, lr, batch, seed), teacher, learnt, judged, held,
                progress or (lambda text, row: None), notes=list(taken.notes),
            )  # fmt: skip
            best = _run(recipe, taken, channels)
            artefacts.remember(place, [row.file.name for row in recipe.rows if row.kept])
    except OSError as error:
        where, reason = error.filename or place, error.strerror or error
        raise TrainingError(f"{where}: {reason}. The files of the steps before are as they were") from error
    if not epochs:
        recipe.notes.append("epochs=0: nothing learnt again what pruning took.")
    if validation is None:
        recipe.notes.append("A fifth of the data decided; samples that the float net has not learnt are better judges.")
    if best.cost.packed:
        recipe.notes.append(f"Weights of {best.step} are stored packed: {best.cost.packed:,} bytes of flash less.")
    if len(judged) * limit < 100 and limit:
        recipe.notes.append(
            f"{len(judged)} validation samples cannot tell {limit:g} points: one of them is {100 / len(judged):.1f}"
        )
    return Shrunk(
        tuple(recipe.rows), best, limit, named, (len(judged), 0 if held is None else len(held)), tuple(recipe.notes)
    )


def _check_steps(steps: Sequence[str], again: Sequence[str], channels: Sequence[float]) -> None:
    """Raises TrainingError for steps there are not, and for shares that do not rise."""
    for name, given in (("steps", steps), ("again", again)):
        is_list = isinstance(given, Iterable) and not isinstance(given, str)
        if not is_list or (unknown := [each for each in given if each not in STEPS]):
            what = ", ".join(map(repr, unknown)) if is_list else repr(given)
            raise TrainingError(f"{name}: no step {what}; a list of some of {', '.join(STEPS)} is needed")
    if absent := [each for each in again if each not in steps]:
        raise TrainingError(f"again: {absent[0]} is to be done again and is left out; one of the two")
    try:
        rise = all(0 < each < 1 for each in channels) and list(channels) == sorted(set(channels))
    except TypeError:
        rise = False
    if not rise:
        raise TrainingError(f"channels={channels!r}: shares between 0 and 1, each larger than the one before it")


def _run(recipe: Recipe, taken: _Taken, channels: Sequence[float]) -> Row:
    """All steps in their order; the last that is kept."""
    base = recipe.judged(recipe.do(FLOAT, FLOAT, None, taken.exported, taken.graph), True, "")
    source = recipe.distilled(base) if "distil" in recipe.steps else base
    good = recipe.pruned(source, channels) if "prune" in recipe.steps else [source]
    if "ptq" in recipe.steps or "qat" in recipe.steps:
        return recipe.smallest_int8(good) or good[-1]
    return good[-1]


def _own(model: Any, core: str) -> Any:
    """The model as a module, or as a float graph of one input and one output."""
    from torch import nn

    if isinstance(model, nn.Module):
        return model
    graph = model if isinstance(model, Graph) else load(model)
    if trees_of(graph):
        raise TrainingError(
            f"'{graph.name}' has trees: shrink makes nets small, whose channels and roundings can be learnt. A forest "
            "is made small where it is fitted: fewer trees, or less deep; 'microtune compile' makes C of it as it is"
        )
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(f"'{graph.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; one of each")
    if graph.is_int8:
        raise TrainingError(
            f"'{graph.name}' is int8 already, {flash_of(graph, core):,} bytes of flash on {core}: pruning and training "
            "with quantisation begin with a float net. Give the one it was made from; or take it as it is: 'microtune "
            "compile' makes C of it, 'microtune search' finds what of it can learn in your budget"
        )
    return graph


def _taken(own: Any, learnt: Samples, loss: Loss) -> _Taken:
    """The net without a softmax or sigmoid that the loss contains."""
    from microtune.frontends.torch import onnx_of
    from microtune.training.bridge import to_torch

    stored = None if isinstance(own, Graph) else onnx_of(own, learnt.x[:1])
    graph = own if stored is None else load(stored, name=type(own).__name__)
    trunk = without_final(graph, loss)
    module = to_torch(trunk) if stored is None or trunk is not graph else own
    if trunk is graph:
        return _Taken(module, graph, lambda: onnx_of(module, learnt.x[:1]) if stored is None else stored)
    note = f"The {loss.activation} at the end of '{graph.name}' is left out: it changes no answer."
    return _Taken(module, trunk, lambda: onnx_of(module, learnt.x[:1]), (note,))


Fitting = Callable[[Any, str, int], Samples]
"""Samples checked, from (data, what they are, how many are needed at least)."""


def _fitting(own: Any, loss: Loss, data: Any) -> Fitting:
    """What checks samples against the net; a module is run on two of ``data`` to see what it takes and gives."""
    from microtune.training.modules import predictions, samples_for

    indices = False
    if isinstance(own, Graph):
        shape, outputs = own.tensor(own.inputs[0]).shape, own.tensor(own.outputs[0]).size
    else:
        try:
            first = samples_for(own, data, loss)
        except TrainingError as error:
            raise TrainingError(f"data: {error}") from None
        shape, indices = first.x.shape[1:], first.x.dtype.kind == "i"
        outputs = predictions(own, first.x[:2]).shape[1]

    def check(given: Any, what: str, fewest: int) -> Samples:
        x, y = pair_of(given, what)
        try:
            samples = checked(x, y, shape, outputs, loss, indices=indices, fewest=fewest)
        except TrainingError as error:
            raise TrainingError(f"{what}: {error}") from None
        if what != "test" and loss.task in ("MT_MULTICLASS", "MT_BINARY") and (samples.y == samples.y[0]).all():
            raise TrainingError(f"{what}: all samples are of one class; what any net is worth shows only with two")
        return samples

    return check


def _samples(check: Fitting, data: Any, validation: Any, seed: int) -> tuple[Samples, Samples]:
    """What is learnt and what decides: a fifth, of each class where there are classes, unless it is given."""
    samples = check(data, "data", FEWEST)
    if validation is not None:
        return samples, check(validation, "validation", FEWEST_JUDGED)
    learnt, judged = split_samples(samples, HELD_OUT, seed)
    if not len(judged):
        raise TrainingError("data: no class has two samples, one to learn and one that decides; give validation=(x, y)")
    return learnt, judged
