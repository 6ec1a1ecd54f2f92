"""Write the C of a device: its header, its programs and its base weights."""

from __future__ import annotations

import keyword
import re
import textwrap
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from microtune.compiler.layout import WORD, Layout, Slice, balanced_classes, change_kinds, lay_out, words
from microtune.compiler.planned import Plan, lists_inputs, target_size
from microtune.compiler.program import Program
from microtune.errors import BuildError
from microtune.ir import Node, Tensor
from microtune.ops import OPS
from microtune.ops.op import KernelCall
from microtune.ops.update import RULES
from microtune.tuning.bayes import Bayes
from microtune.tuning.heads import ClosedForm
from microtune.version import VERSION

C_WORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if inline int long
    register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    bool class new delete this template typename namespace operator private public protected try catch throw
    using virtual friend
    input output cut arena parameters learnt optimizer target rate correction noise loss device base hidden
    model""".split()  # noqa: SIM905
)


WIDTH = 110
"""Columns of generated statements."""
C_TYPES = {"float32": "float", "int8": "int8_t", "int32": "int32_t"}


def identifier(name: str) -> str:
    """A C identifier close to any name."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "tensor"
    # mt_ is the runtime's
    plain = f"t_{plain}" if plain[0].isdigit() or plain.startswith("mt_") else plain
    return f"{plain}_" if plain in C_WORDS or keyword.iskeyword(plain) else plain


def check_name(name: str) -> str:
    """A device name is part of every C name, so it must be a C identifier."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", name) or name in C_WORDS or name.startswith("mt_"):
        raise BuildError(
            f"'{name}' cannot name a device: its C functions are called NAME_predict and so on. "
            "Use a directory name of letters, digits and underscores that starts with a letter, such as build/toaster"
        )
    return name


def literal(value: float) -> str:
    """A float constant in C that reads back as the same bits."""
    single = np.float32(value)
    if not np.isfinite(single):
        raise BuildError(f"{value} cannot be written as a C constant")
    text = (
        np.format_float_positional(single, unique=True, trim="0")
        if 1e-4 <= abs(single) < 1e7 or single == 0
        else f"{float(single):.9g}"
    )
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def shape_of(tensor: Tensor) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"


@dataclass(frozen=True)
class Statement:
    """A statement of a program, broken where it would be too long. ``comment`` tells what it computes."""

    code: str
    comment: str = ""

    @property
    def text(self) -> str:
        """The statement with its comment behind it, or above where it is long."""
        comment = f"/* {self.comment} */" if self.comment else ""
        line = f"    {self.code} {comment}".rstrip()
        if len(line) <= WIDTH:
            return line
        broken = textwrap.wrap(
            self.code, WIDTH, initial_indent="    ", subsequent_indent="        ", break_long_words=False
        )
        return "\n".join([f"    {comment}", *broken] if comment else broken)


def _unique(names: list[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Distinct C identifiers for tensor names, none of them reserved."""
    used = set(reserved)
    found: dict[str, str] = {}
    for name in names:
        wish, count = identifier(name), 1
        while wish in used:
            count += 1
            wish = f"{identifier(name)}_{count}"
        used.add(wish)
        found[name] = wish
    return found


def _pointer(base: str, offset: int, dtype: str = "float32") -> str:
    """A pointer ``offset`` bytes behind ``base``, a float pointer. Bytes may lie in an array of floats, for C lets
    any object be accessed as characters; no other type may."""
    if dtype == "float32":
        return base if offset == 0 else f"{base} + {offset // 4}"
    if dtype != "int8":
        raise BuildError(f"a tensor of type {dtype} cannot be computed at run time; only float32 and int8 can")
    return f"(int8_t *){base}" if offset == 0 else f"(int8_t *){base} + {offset}"


class Writer:
    """C names of all weights of a net, and its programs as C statements."""

    def __init__(self, base: Sequence[Slice], learns: int, name: str) -> None:
        """``base``: all constants, of which the first ``learns`` learn."""
        self.name = name
        self.members = _unique([each.tensor.name for each in base])
        self.learns = {each.tensor.name for each in base[:learns]}

    def places(self, learnt: bool) -> dict[str, str]:
        """C expressions of the weights; of what learns only where a pointer ``learnt`` to it is at hand."""
        found = {name: f"{self.name}_base.{word}" for name, word in self.members.items() if name not in self.learns}
        if learnt:
            found |= {name: f"learnt->{self.members[name]}" for name in self.learns}
        return found

    def program(self, program: Program, places: Mapping[str, str]) -> list[Statement]:
        """Declarations of arena pointers, then one statement per node."""
        graph = program.graph
        expressions = dict(places)
        local = [
            name
            for node in graph.nodes
            for name in node.outputs
            if program.arena.offset(name) is not None and name not in graph.inputs
        ]
        names = _unique(local, [f"{self.name}_base"])
        declared: list[Statement] = []
        for name in local:
            tensor, offset = graph.tensor(name), program.arena.offset(name)
            assert offset is not None
            text = f"{C_TYPES[tensor.dtype]} *const {names[name]} = {_pointer('arena', offset, tensor.dtype)};"
            declared.append(Statement(text, shape_of(tensor)))
            expressions[name] = names[name]
        for node in graph.nodes:
            expressions.update({new: expressions[old] for new, old in node.updates.items()})
        return [*declared, *(self._statement(node, graph.tensors, expressions) for node in graph.nodes)]

    def _statement(self, node: Node, tensors: Mapping[str, Tensor], expressions: Mapping[str, str]) -> Statement:
        call = OPS[node.op].kernel(node, tensors)
        assert call is not None
        comment = node.name if not node.updates else f"{', '.join(node.updates.values())} learn in place"
        return self.call(call, expressions, comment.replace("*/", "* /"))

    def call(self, call: KernelCall, expressions: Mapping[str, str], comment: str = "") -> Statement:
        """A call of a kernel on tensors at these places."""
        arguments = []
        for argument in call.arguments:
            if isinstance(argument, str):
                arguments.append(expressions[argument])
            else:
                arguments.append(literal(argument) if isinstance(argument, float) else str(argument))
        result = "" if call.result is None else "const float loss = "
        return Statement(f"{result}{call.function}({', '.join(arguments)});", comment)


def _written(choice: Any) -> str:
    """A choice as a user would write it: ``SGD(lr=0.02)``, without what is default anyway."""
    named = [each for each in fields(choice) if each.name == "lr" or getattr(choice, each.name) != each.default]
    return f"{type(choice).__name__}({', '.join(f'{each.name}={getattr(choice, each.name)!r}' for each in named)})"


def _used_headers(plan: Plan) -> list[str]:
    programs = (plan.programs.backbone, plan.programs.head, plan.programs.step)
    found = {OPS[node.op].header for program in programs if program for node in program.graph.nodes}
    found |= {"mt_kernels_elementwise.h", "mt_kernels_loss.h", "mt_migration.h"}
    found |= {"mt_bayes_rule.h" if plan.programs.hidden else "mt_gradient.h"}
    found |= {"mt_learner_log.h"} if plan.learner.log else set()
    return sorted(found | ({"mt_recognition.h"} if plan.learner.recognise else set()))


def uses(statements: list[Statement], word: str) -> bool:
    return any(re.search(rf"\b{word}\b", statement.code) for statement in statements)


@cache
def environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["c"] = literal
    return found


def base_bytes(base: Sequence[Slice]) -> bytes:
    """The factory's weights as they lie in memory, little-endian: what learns first, in the order of the parameters."""
    found = []
    for each in base:
        data = np.asarray(each.tensor.data)
        row = data.astype(data.dtype.newbyteorder("<")).tobytes()
        found.append(row + bytes(-len(row) % WORD))
    return b"".join(found)


def _step(plan: Plan, writer: Writer, places: Mapping[str, str]) -> list[Statement]:
    """The training step, or nothing where learning is no step."""
    program = plan.programs.step
    if program is None or isinstance(plan.optimizer, Bayes):
        return []
    # the inputs of a step: the cut, the target, the optimiser's scalars, its state
    target, *rest = program.graph.inputs[len(plan.programs.cut) :]
    state = {tensor.name for tensor in plan.programs.state}
    roles = () if isinstance(plan.optimizer, ClosedForm) else (*RULES[plan.optimizer.rule][1], "noise")
    written = {"rate": "rate" if plan.optimizer.decay else literal(plan.optimizer.lr)}
    scalars = [name for name in rest if name not in state]
    given = {name: written.get(role, role) for name, role in zip(scalars, roles, strict=False)}
    found = writer.program(program, {**places, **given, target: "target"})
    return [*_rate(plan), *found]


def _rate(plan: Plan) -> list[Statement]:
    """What of the learning rate and of stochastic rounding is computed at run time."""
    if isinstance(plan.optimizer, ClosedForm | Bayes):
        return []
    found = []
    start = 0
    if plan.programs.rounds:
        found.append(Statement("const uint32_t noise = mt_noise_begin(optimizer);", "steps taken, seed of rounding"))
        start += WORD
    if plan.optimizer.decay:
        where = _pointer("optimizer", start)
        call = f"mt_decayed_rate({where}, {literal(plan.optimizer.lr)}, {literal(plan.optimizer.decay)})"
        found.append(Statement(f"const float rate = {call};", "lr / (1 + decay t)"))
        start += WORD
    if plan.optimizer.rule == "adam":
        given = plan.optimizer.constants
        call = f"mt_adam_begin({_pointer('optimizer', start)}, {literal(given['beta1'])}, {literal(given['beta2'])})"
        found.append(Statement(f"const mt_adam_correction correction = {call};", "bias corrections"))
    return found


def emit(plan: Plan, name: str) -> dict[str, str | bytes]:
    """The generated files by name: NAME.h, NAME.c, NAME_base.c and NAME_base.bin. Same plan, same bytes."""
    layout = lay_out(plan)
    writer = Writer(layout.base, 0 if plan.programs.hidden else len(layout.parameters), check_name(name))
    programs = plan.programs
    graph_input = plan.graph.inputs[0]
    input_tensor = plan.graph.tensor(graph_input)
    output = programs.head.graph.outputs[-1]
    cut = {each.tensor.name: each for each in layout.cut}
    writable = {key: _pointer("cut", each.offset, each.tensor.dtype) for key, each in cut.items()}
    readable = {key: place.replace("(int8_t", "(const int8_t") for key, place in writable.items()}
    state = {each.tensor.name: _pointer("optimizer", each.offset) for each in layout.optimizer}
    # the head reads factory values only through `parameters`; the backbone never sees those
    backbone_body = writer.program(programs.backbone, {**writer.places(learnt=False), **writable, graph_input: "input"})
    if graph_input in cut:
        copy = f"MT_COPY({writable[graph_input]}, input, {input_tensor.bytes}u);"
        backbone_body.append(Statement(copy, "training starts at the input"))
    places = {**writer.places(learnt=True), **readable, **state}
    hidden = {programs.hidden.name: "hidden"} if programs.hidden else {}
    head = writer.program(programs.head, {**places, **hidden, output: "output"})
    step = _step(plan, writer, places)
    base = base_bytes(layout.base)
    # the residual head is sound for values within 1000; see runtime/mt_bayes.h
    reach = 1000.0 if programs.hidden else 3.4e38
    context = {
        "name": name,
        "upper": name.upper(),
        "version": VERSION,
        "plan": plan,
        "layout": layout,
        "inputs": plan.inputs,
        "input_count": input_tensor.size,
        "input_type": C_TYPES[input_tensor.dtype],
        "input_scale": scale_of(input_tensor),
        "input_shape": shape_of(input_tensor),
        "lists_inputs": lists_inputs(plan),
        "learns": 0 if programs.hidden else len(layout.parameters),
        "outputs": programs.head.graph.tensor(output).size,
        "targets": target_size(plan),
        "task": plan.loss.task,
        "headers": _used_headers(plan),
        "backbone": backbone_body,
        "head": head,
        "step": step,
        "uses": uses,
        "loss_call": _loss_call(plan),
        "begin": [writer.call(each, {**writer.places(learnt=False), **state}) for each in programs.begin],
        "sequential": isinstance(plan.optimizer, ClosedForm),
        "rule": "mt_bayes_rule" if programs.hidden else "mt_gradient_rule",
        "hidden": programs.hidden.size if programs.hidden else 0,
        "bayes": plan.optimizer.constants if isinstance(plan.optimizer, Bayes) else {},
        "contexts": plan.contexts,
        "structure": _structure(plan, layout),
        "verbs": VERBS_OF_LEARNER + ((("select_profile", "profile"),) if plan.learner.profiles > 1 else ()),
        "people_note": _people_note(plan),
        "pulls": plan.pulls,
        "pulls_rows": [] if plan.pulls is None else rows(Slice(Tensor("pulls", plan.pulls.shape, data=plan.pulls), 0)),
        "classes": balanced_classes(plan),
        "kinds": 0 if programs.hidden else change_kinds(plan),
        "cut_bytes": all(each.dtype == "int8" for each in programs.cut),
        "rate": 0.0 if isinstance(plan.optimizer, ClosedForm | Bayes) else plan.optimizer.lr,
        "activate": ACTIVATE[plan.loss.task],
        "counts": (0, 0, 0)
        if programs.hidden
        else (
            sum(map(words, programs.trained)),
            sum(words(each) for each in programs.trained if each.dtype == "float32"),
            layout.optimizer_size,
        ),
        "ranged": reach < 3.4e38 or any(np.isfinite([each.low, each.high]).any() for each in plan.inputs),
        "low": [max(each.low, -reach) for each in plan.inputs],
        "high": [min(each.high, reach) for each in plan.inputs],
        "base": layout.base,
        "members": writer.members,
        "c_types": C_TYPES,
        "parameter_count": sum(each.tensor.size for each in layout.parameters),
        "shape": shape_of,
        "written": _written,
        "rows": rows,
    }
    templates = environment()

    def render(template: str, identity: int) -> str:
        return templates.get_template(template).render(**context, identity=identity)

    # the identity covers the program and the weights: a state saved by any other build is refused
    identity = zlib.crc32(render("device.c.jinja", 0).encode() + render("device.h.jinja", 0).encode() + base)
    return {
        f"{name}.h": render("device.h.jinja", identity),
        f"{name}.c": render("device.c.jinja", identity),
        f"{name}_base.c": render("base.c.jinja", identity),
        f"{name}_base.bin": base,
    }


ACTIVATE = {"MT_REGRESSION": "NULL", "MT_BINARY": "mt_sigmoid_all", "MT_MULTICLASS": "mt_softmax"}
"""Logits to probabilities, in the runtime."""
VERBS_OF_LEARNER = (
    ("learning_mode", "uses"), ("forget", ""), ("forget_last", "uses"), ("forget_since", "seconds"), ("reset", ""),
    ("save", ""),
)  # fmt: skip
"""Calls that the runtime's do the work of, and what they take."""


def _structure(plan: Plan, layout: Layout) -> int:
    """CRC-32 of what learns, by names, shapes and types, and of the frozen weights that it was learnt for."""
    learns = {tensor.name for tensor in (*plan.programs.trained, *plan.programs.constants)}
    frozen = base_bytes([each for each in layout.base if each.tensor.name not in learns])
    return zlib.crc32(repr([(each.name, each.shape, each.dtype) for each in plan.programs.trained]).encode() + frozen)


def _people_note(plan: Plan) -> str:
    """What the people in the struct are."""
    learner = plan.learner
    if learner.sets == 1:
        return "whoever uses it"
    if learner.parts == 1:
        return "one of each profile"
    return f"number profile * {learner.parts} + context"


def scale_of(tensor: Tensor) -> tuple[float, int] | None:
    """Scale and zero point of an int8 tensor."""
    if tensor.quantization is None:
        return None
    return float(tensor.quantization.scale), int(tensor.quantization.zero_point)


def rows(each: Slice) -> list[str]:
    """The values of a constant in C, some to a line."""
    values = np.asarray(each.tensor.data).ravel()
    if each.tensor.dtype == "float32":
        flat, length = [literal(value) for value in values], 8
    else:
        flat, length = [str(value) for value in values.tolist()], 24 if each.tensor.dtype == "int8" else 10
        # INT32_MIN has no literal in C
        flat = ["(-2147483647 - 1)" if text == "-2147483648" else text for text in flat]
    return [", ".join(flat[start : start + length]) for start in range(0, len(flat), length)]


def _loss_call(plan: Plan) -> str:
    size = plan.programs.head.graph.tensor(plan.programs.head.graph.outputs[-1]).size
    delta = "" if plan.loss.delta is None else f"{literal(plan.loss.delta)}, "
    return f"mt_{plan.loss.operator}(output, target, NULL, {delta}{size})"


__all__ = [
    "C_TYPES",
    "Writer",
    "base_bytes",
    "check_name",
    "emit",
    "environment",
    "identifier",
    "literal",
    "rows",
    "scale_of",
    "shape_of",
    "uses",
]
