"""Where everything of a device lies: the fields of its one RAM struct and the base weights.

Offsets count from behind the first field, a pointer, whose width differs between targets; everything after
it is made of whole 4-byte words and has the same layout everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from microtune.compiler.planned import Plan, target_size
from microtune.ir import Tensor
from microtune.ir.tensor import DTYPE_BYTES
from microtune.tuning.bayes import Bayes

WORD = 4
# sizeof(mt_state) and sizeof(mt_bayes_state), in runtime/; the generated C refuses to compile when one is wrong
BYTES = {"mt_state": 84, "mt_bayes_state": 56, "uint16_t": 2, "uint8_t": 1}
RUN, JUDGED = 4, 16  # MT_BAYES_RUN and MT_BAYES_JUDGED of runtime/mt_bayes.h


@dataclass(frozen=True)
class Field:
    """One member of the struct: ``count`` elements of a C type, a multiple of 4 bytes in all."""

    name: str
    c_type: str
    count: int
    bytes: int
    offset: int
    comment: str
    saved: bool


@dataclass(frozen=True)
class Slice:
    """A tensor in a row of tensors, each begun at a whole word; ``offset`` in bytes."""

    tensor: Tensor
    offset: int

    @property
    def count(self) -> int:
        """Elements with the padding up to whole words."""
        each = DTYPE_BYTES[self.tensor.dtype]
        return words(self.tensor) * WORD // each


@dataclass(frozen=True)
class Layout:
    """``fields`` in order; ``saved`` bytes of them survive power loss; ``bytes`` follow the port pointer.

    ``input`` is where in the arena the caller may put the input, if it has a place there. Sizes are in words.
    """

    fields: tuple[Field, ...]
    saved: int
    bytes: int
    parameters: tuple[Slice, ...]
    optimizer: tuple[Slice, ...]
    optimizer_size: int
    cut: tuple[Slice, ...]
    cut_size: int
    base: tuple[Slice, ...]
    base_size: int
    input: int | None

    def field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)


def words(tensor: Tensor) -> int:
    """4-byte words of a tensor."""
    return (tensor.bytes + WORD - 1) // WORD


def in_row(tensors: Iterable[Tensor], start: int = 0) -> tuple[tuple[Slice, ...], int]:
    """Tensors one behind the other from the word ``start``, and the word behind the last."""
    found = []
    for tensor in tensors:
        found.append(Slice(tensor, WORD * start))
        start += words(tensor)
    return tuple(found), start


def scalar_state(plan: Plan) -> int:
    """Words of optimiser state before the per-parameter tensors: the count of steps that seeds stochastic
    rounding (where integers learn), the step count (decay), Adam's two powers."""
    if isinstance(plan.optimizer, Bayes):
        return 0
    adam = 2 if plan.optimizer.rule == "adam" else 0
    return (1 if plan.programs.rounds else 0) + (1 if plan.optimizer.decay else 0) + adam


def bayes_features(hidden: int, inputs: int, bumps: int) -> int:
    """MT_BAYES_FEATURES of runtime/mt_bayes.h."""
    return hidden + inputs + bumps + 2


def bayes_workspace(features: int) -> int:
    """MT_BAYES_WORKSPACE of runtime/mt_bayes.h."""
    return (RUN + 2) * features + features * (features + 1) // 2 + 2 * JUDGED


def _bayes_rows(
    plan: Plan, head: Bayes, hidden: int, inputs: int, arena: int
) -> tuple[tuple[str, str, int, str, bool], ...]:
    features, kept = bayes_features(hidden, inputs, head.bumps), plan.learner.buffer
    stride = inputs + 5
    return (
        ("state", "mt_state", 1, "counters, generator, metrics", True),
        ("bayes", "mt_bayes_state", 1, "noise, recent surprises", True),
        ("samples", "float", kept * stride, f"{kept} of (input {inputs}, target, age, two weights, time)", True),
        ("centres", "float", head.bumps * inputs, "where habits changed in one context", True),
        ("precision", "float", features, "prior precisions of the head", True),
        ("parameters", "float", features, "what has been learnt: the head's mean", True),
        ("covariance", "float", features * (features + 1) // 2, "and its uncertainty", True),
        ("sequence", "uint32_t", 1, "number of the newest saved state", False),
        ("pending", "uint8_t", 4, "[0] = 1: a prediction waits for its observation", False),
        ("pending_cut", "float", inputs, "the input of that prediction", False),
        ("pending_output", "float", 1, "what was suggested", False),
        ("output", "float", 1, "scratch", False),
        ("workspace", "float", bayes_workspace(features), "scratch, and the fit under way", False),
        ("active", "uint16_t", (features + 1) // 2 * 2, "features that are not zero", False),
        ("arena", "float", arena + hidden, "activations", False),
    )


def lay_out(plan: Plan) -> Layout:
    """The layout of a plan's device."""
    programs = plan.programs
    parameters, parameter_size = in_row(programs.trained)
    learnt = parameters
    optimizer, optimizer_size = in_row(programs.state, scalar_state(plan))
    cut, cut_size = in_row(programs.cut)
    trained = {tensor.name for tensor in programs.trained}
    frozen = {
        tensor.name: tensor
        for program in (programs.backbone, programs.head, programs.step)
        if program is not None
        for tensor in program.graph.constants
        if tensor.name not in trained
    }
    base, base_size = in_row([*programs.trained, *frozen.values(), *programs.constants])
    outputs = programs.head.graph.tensor(programs.head.graph.outputs[-1]).size
    targets = target_size(plan)
    arena = max(program.arena.bytes for program in (programs.backbone, programs.head, programs.step) if program) // WORD
    sample = cut_size + targets
    words_note = "" if all(tensor.dtype == "float32" for tensor in programs.cut) else " words"
    copies = 0 if plan.learner.in_place else 1
    struct = "{name}_parameters"
    rows: tuple[tuple[str, str, int, str, bool], ...] = (
        ("state", "mt_state", 1, "counters, generator, metrics", True),
        ("parameters", struct, 1, "what has been learnt", True),
        ("previous", struct, copies, "the same before the last accepted update", True),
        ("optimizer", "float", optimizer_size, "optimiser state", True),
        (
            "samples",
            "float",
            plan.learner.buffer * sample,
            f"{plan.learner.buffer} of (cut {cut_size}, target {targets})" + words_note,
            True,
        ),
        ("sequence", "uint32_t", 1, "number of the newest saved state", False),
        ("pending", "uint8_t", 4, "[0] = 1: a prediction waits for its observation", False),
        ("pending_cut", "float", cut_size, "the cut of that prediction", False),
        ("pending_output", "float", outputs, "what was suggested", False),
        ("candidate", struct, copies, "the update under way", False),
        ("candidate_optimizer", "float", copies * optimizer_size, "its optimiser state", False),
        ("output", "float", outputs, "scratch", False),
        ("arena", "float", arena, "activations and gradients, shared by prediction and training", False),
    )
    if isinstance(plan.optimizer, Bayes):
        assert programs.hidden is not None
        rows = _bayes_rows(plan, plan.optimizer, programs.hidden.size, cut_size, arena)
        features = bayes_features(programs.hidden.size, cut_size, plan.optimizer.bumps)
        learnt = (Slice(Tensor("residual_head", (features,)), 0),)
    fields, offset, saved = [], 0, 0
    for name, c_type, count, comment, keep in rows:
        if count == 0:
            continue
        size = (WORD * parameter_size if c_type == struct else BYTES.get(c_type, WORD)) * count
        fields.append(Field(name, c_type, count, size, offset, comment, keep))
        offset += size
        saved = offset if keep else saved
    place = programs.backbone.arena.offset(plan.graph.inputs[0])
    return Layout(
        tuple(fields), saved, offset, learnt, optimizer, optimizer_size, cut, cut_size, base, base_size, place
    )
