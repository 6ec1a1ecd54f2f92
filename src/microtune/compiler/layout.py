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
# sizeof in runtime/; the generated C refuses to compile when one is wrong
BYTES = {
    "mt_state": 92, "mt_person": 52, "mt_work": 76, "mt_bayes_state": 56, "mt_bayes_cursor": 24, "mt_sensor": 12,
    "mt_change_state": 16, "mt_change_class": 8, "mt_log_head": 8, "uint16_t": 2, "uint8_t": 1,
}  # fmt: skip
RUN, JUDGED = 4, 16  # MT_BAYES_RUN and MT_BAYES_JUDGED of runtime/mt_bayes.h


@dataclass(frozen=True)
class Field:
    """One member of the struct: ``count`` elements of a C type, a multiple of 4 bytes in all.

    ``personal``: there is one in each person; ``offset`` is that in the first.
    """

    name: str
    c_type: str
    count: int
    bytes: int
    offset: int
    comment: str
    saved: bool
    personal: bool


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

    The personal ones lie in ``sets`` structs of ``person`` bytes from ``people`` on. ``input`` is where in the
    arena the caller may put the input, if it has a place there. Sizes of rows of tensors are in words.
    """

    fields: tuple[Field, ...]
    saved: int
    bytes: int
    people: int
    person: int
    sets: int
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
    return (1 if plan.programs.rounds else 0) + (1 if plan.optimizer.decay and not plan.fixed else 0) + adam


def bayes_features(hidden: int, inputs: int, bumps: int) -> int:
    """MT_BAYES_FEATURES of runtime/mt_bayes.h."""
    return hidden + inputs + bumps + 2


def bayes_workspace(features: int) -> int:
    """MT_BAYES_WORKSPACE of runtime/mt_bayes.h."""
    return (RUN + 2) * features + features * (features + 1) // 2 + 2 * JUDGED


Row = tuple[str, str, int, str]
"""Name, C type, elements and comment of a member; without elements there is none."""


def balanced_classes(plan: Plan) -> int:
    """Classes that the reservoir is balanced by; 0: it is not."""
    outputs = plan.programs.head.graph.tensor(plan.programs.head.graph.outputs[-1]).size
    if plan.learner.replay == 0 or plan.loss.task == "MT_REGRESSION":
        return 0
    if plan.loss.task == "MT_MULTICLASS":
        return outputs
    return 2 if outputs == 1 else 0


def change_kinds(plan: Plan) -> int:
    """What a change of habits is looked for in: the classes, or no and yes of each output; 0: it is not."""
    outputs = plan.programs.head.graph.tensor(plan.programs.head.graph.outputs[-1]).size
    alike = len({tensor.dtype for tensor in plan.programs.cut}) == 1
    if not plan.learner.changes or plan.fixed or not alike or plan.loss.task == "MT_REGRESSION":
        return 0
    return outputs if plan.loss.task == "MT_MULTICLASS" else 2 * outputs


def _shared_rows(plan: Plan) -> list[Row]:
    inputs = len(plan.inputs)
    recognition = plan.learner.profiles * (2 * inputs + 1) if plan.learner.recognise else 0
    return [
        ("state", "mt_state", 1, "who uses it, counters"),
        ("sensors", "mt_sensor", len(plan.sensors), "what each sensor said of late"),
        ("recognition", "float", recognition, "contexts in which each profile was chosen"),
    ]


def _scratch_rows(plan: Plan, cut: int, outputs: int) -> list[Row]:
    """What prediction and observation need."""
    return [
        ("sequence", "uint32_t", 1, "number of the newest saved state"),
        ("records", "mt_log_head", 1 if plan.learner.log else 0, "where the metrics log ends"),
        ("pending", "uint8_t", 4, "[0] = 1: a prediction waits for its observation; [1] whose; [2] its sensors"),
        ("pending_cut", "float", cut, "the cut of that prediction"),
        ("pending_output", "float", outputs, "what was suggested"),
        ("work", "mt_work", 1, "how far an update has come"),
    ]


def _bayes_rows(head: Bayes, kept: int, hidden: int, inputs: int, arena: int) -> tuple[list[Row], list[Row]]:
    """Members of a person, and scratch."""
    features, stride = bayes_features(hidden, inputs, head.bumps), inputs + 5
    return [
        ("person", "mt_person", 1, "counters, generator"),
        ("bayes", "mt_bayes_state", 1, "noise, recent surprises"),
        ("samples", "float", kept * stride, f"{kept} of (input {inputs}, target, age, two weights, time)"),
        ("centres", "float", head.bumps * inputs, "where habits changed in one context"),
        ("precision", "float", features, "prior precisions of the head"),
        ("parameters", "float", features, "what has been learnt: the head's mean"),
        ("covariance", "float", features * (features + 1) // 2, "and its uncertainty"),
        ("former", "float", features, "the mean before the last change of habits"),
    ], [
        ("output", "float", 1, "scratch"),
        ("cursor", "mt_bayes_cursor", 1, "how far a fit has come"),
        ("workspace", "float", bayes_workspace(features), "scratch, and the fit under way"),
        ("active", "uint16_t", (features + 1) // 2 * 2, "features that are not zero"),
        ("arena", "float", arena + hidden, "activations"),
    ]  # fmt: skip


STRUCT = "{name}_parameters"
"""C type of the parameters."""


def _gradient_rows(
    plan: Plan, cut: int, targets: int, optimizer: int, outputs: int, arena: int
) -> tuple[list[Row], list[Row]]:
    """Members of a person, and scratch."""
    learner, kinds = plan.learner, change_kinds(plan)
    kept, copies = learner.buffer + learner.replay, 0 if learner.in_place else 1
    words_note = "" if all(tensor.dtype == "float32" for tensor in plan.programs.cut) else " words"
    floats = sum(words(each) for each in plan.programs.trained if each.dtype == "float32")
    reservoir = f", {learner.replay} of them a reservoir" if learner.replay else ""
    return [
        ("person", "mt_person", 1, "counters, generator"),
        ("parameters", STRUCT, 1, "what has been learnt"),
        ("previous", STRUCT, copies, "the same before the last accepted update"),
        ("optimizer", "float", optimizer, "optimiser state"),
        ("importance", "float", floats if learner.ewc_memory else 0, "Fisher information of what was learnt here"),
        ("seen", "uint32_t", balanced_classes(plan), "samples offered to the reservoir, of each class"),
        ("change", "mt_change_state", 1 if kinds else 0, "are habits changing?"),
        ("changing", "mt_change_class", kinds, "and which"),
        ("samples", "float", kept * (cut + targets + 1),
         f"{kept} of (cut {cut}, target {targets}, time)" + words_note + reservoir),
    ], [
        ("candidate", STRUCT, copies, "the update under way"),
        ("candidate_optimizer", "float", copies * optimizer, "its optimiser state"),
        ("output", "float", outputs, "scratch"),
        ("arena", "float", arena, "activations and gradients, shared by prediction and training"),
    ]  # fmt: skip


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
    if isinstance(plan.optimizer, Bayes):
        assert programs.hidden is not None
        hidden = programs.hidden.size
        personal, scratch = _bayes_rows(plan.optimizer, plan.learner.buffer, hidden, cut_size, arena)
        learnt = (Slice(Tensor("residual_head", (bayes_features(hidden, cut_size, plan.optimizer.bumps),)), 0),)
    else:
        personal, scratch = _gradient_rows(plan, cut_size, targets, optimizer_size, outputs, arena)
    sets = plan.learner.sets
    fields: list[Field] = []
    offset = 0

    def place_all(rows: list[Row], saved: bool, is_personal: bool = False) -> int:
        """Bytes of these members."""
        nonlocal offset
        start = offset
        for name, c_type, count, comment in rows:
            if count == 0:
                continue
            c_type = "mt_number" if plan.fixed and c_type == "float" else c_type
            size = (WORD * parameter_size if c_type == STRUCT else BYTES.get(c_type, WORD)) * count
            fields.append(Field(name, c_type, count, size, offset, comment, saved, is_personal))
            offset += size
        return offset - start

    people = place_all(_shared_rows(plan), saved=True)
    person = place_all(personal, saved=True, is_personal=True)
    offset = saved = people + sets * person
    place_all(_scratch_rows(plan, cut_size, outputs) + scratch, saved=False)
    place = programs.backbone.arena.offset(plan.graph.inputs[0])
    return Layout(
        tuple(fields), saved, offset, people, person, sets, learnt, optimizer, optimizer_size, cut, cut_size, base,
        base_size, place,
    )  # fmt: skip
