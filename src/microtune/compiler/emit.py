"""Write the C of a device: its header, its programs and its base weights."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from microtune.compiler.layout import WORD, Layout, Slice, balanced_classes, change_kinds, lay_out, words
from microtune.compiler.planned import Plan, lists_inputs, target_size
from microtune.compiler.writing import (
    C_TYPES,
    Statement,
    Writer,
    base_bytes,
    check_name,
    environment,
    literal,
    number_literal,
    pointer,
    rows,
    scale_of,
    shape_of,
    stands_for,
    steps_of,
    uses,
)
from microtune.ir import Tensor
from microtune.ops import OPS
from microtune.ops.update import RULES
from microtune.tuning.bayes import Bayes
from microtune.tuning.heads import ClosedForm, Mahalanobis
from microtune.version import VERSION


def _written(choice: Any) -> str:
    """A choice as a user would write it: ``SGD(lr=0.02)``, without what is default anyway."""
    named = [each for each in fields(choice) if each.name == "lr" or getattr(choice, each.name) != each.default]
    return f"{type(choice).__name__}({', '.join(f'{each.name}={getattr(choice, each.name)!r}' for each in named)})"


RULE_HEADERS = {
    "mt_bayes_rule": "mt_bayes_rule.h", "mt_guarded_rule": "mt_guarded.h", "mt_gradient_rule": "mt_gradient.h",
}  # fmt: skip


def _rule(plan: Plan) -> str:
    """How observations become parameters: an mt_rule of the runtime."""
    if plan.programs.hidden:
        return "mt_bayes_rule"
    return "mt_guarded_rule" if isinstance(plan.optimizer, Mahalanobis) else "mt_gradient_rule"


def _used_headers(plan: Plan) -> list[str]:
    programs = (plan.programs.backbone, plan.programs.head, plan.programs.step)
    found = {OPS[node.op].header for program in programs if program for node in program.graph.nodes}
    losses = {"mt_kernels_fixed_loss.h"} if plan.fixed else {"mt_kernels_elementwise.h", "mt_kernels_loss.h"}
    found |= {*losses, "mt_migration.h"}
    found |= {RULE_HEADERS[_rule(plan)]}
    found |= {"mt_learner_log.h"} if plan.learner.log else set()
    return sorted(found | ({"mt_recognition.h"} if plan.learner.recognise else set()))


def _step(plan: Plan, writer: Writer, places: Mapping[str, str]) -> list[Statement]:
    """The training step, or nothing where learning is no step."""
    program = plan.programs.step
    if program is None or isinstance(plan.optimizer, Bayes):
        return []
    # the inputs of a step: the cut, the target, the optimiser's scalars, its state
    target, *rest = program.graph.inputs[len(plan.programs.cut) :]
    state = {tensor.name for tensor in plan.programs.state}
    roles: tuple[str, ...] = ()
    if plan.fixed:  # whose rate is in the constants, but for what decays of it
        roles = ("rate", "noise") if plan.optimizer.decay else ("noise",)
    elif not isinstance(plan.optimizer, ClosedForm):
        roles = (*RULES[plan.optimizer.rule][1], "noise")
    written = {"rate": "rate" if plan.optimizer.decay else literal(plan.optimizer.lr)}
    scalars = [name for name in rest if name not in state]
    given = {name: written.get(role, role) for name, role in zip(scalars, roles, strict=False)}
    found = writer.program(program, {**places, **given, target: "target"})
    return [*_rate(plan), *found]


def _pull(plan: Plan, writer: Writer, state: Mapping[str, str]) -> list[Statement]:
    """Integers that go back towards the base after each step; nothing where they do not."""
    step = plan.programs.step
    if not plan.fixed or not plan.learner.pull or step is None:
        return []
    share = round(plan.learner.pull * (2**31 - 1))
    learnt = writer.places(learnt=True)
    found = []
    for node in step.graph.nodes:
        for name in node.updates.values():
            if name not in writer.learns:
                continue
            tensor = step.graph.tensor(name)
            rest = [f"{name}.rest"] if f"{name}.rest" in state else []
            places = [learnt[name], *(state[each] for each in rest), writer.start(name)]
            found.append(Statement(f"mt_pull_{tensor.dtype}({', '.join(places)}, {tensor.size}, {share}, &random);"))
    return found


def _rate(plan: Plan) -> list[Statement]:
    """What of the learning rate and of stochastic rounding is computed at run time."""
    if isinstance(plan.optimizer, ClosedForm | Bayes):
        return []
    if plan.fixed:
        return [
            Statement("const uint32_t noise = (uint32_t)optimizer[0] + 1u;", "steps taken, seed of rounding"),
            Statement("optimizer[0] = (mt_number)noise;"),
            *(
                [Statement(f"const mt_number rate = mt_decay_fixed(noise - 1u, {decay});", "1 / (1 + decay t)")]
                if (decay := round(plan.optimizer.decay * 2**31))
                else []
            ),
        ]
    found = []
    start = 0
    if plan.programs.rounds:
        found.append(Statement("const uint32_t noise = mt_noise_begin(optimizer);", "steps taken, seed of rounding"))
        start += WORD
    if plan.optimizer.decay:
        where = pointer("optimizer", start)
        call = f"mt_decayed_rate({where}, {literal(plan.optimizer.lr)}, {literal(plan.optimizer.decay)})"
        found.append(Statement(f"const float rate = {call};", "lr / (1 + decay t)"))
        start += WORD
    if plan.optimizer.rule == "adam":
        given = plan.optimizer.constants
        call = f"mt_adam_begin({pointer('optimizer', start)}, {literal(given['beta1'])}, {literal(given['beta2'])})"
        found.append(Statement(f"const mt_adam_correction correction = {call};", "bias corrections"))
    return found


def emit(plan: Plan, name: str) -> dict[str, str | bytes]:
    """The generated files by name: NAME.h, NAME.c, NAME_base.c and NAME_base.bin. Same plan, same bytes."""
    layout = lay_out(plan)
    writer = Writer(layout.base, 0 if plan.programs.hidden else len(layout.parameters), check_name(name), plan.fixed)
    programs = plan.programs
    graph_input = plan.graph.inputs[0]
    input_tensor = plan.graph.tensor(graph_input)
    output = programs.head.graph.outputs[-1]
    cut = {each.tensor.name: each for each in layout.cut}
    writable = {key: pointer("cut", each.offset, each.tensor.dtype, plan.fixed) for key, each in cut.items()}
    readable = {key: place.replace("(int8_t", "(const int8_t") for key, place in writable.items()}
    state = {
        each.tensor.name: pointer("optimizer", each.offset, each.tensor.dtype, plan.fixed) for each in layout.optimizer
    }
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
        "steps_of_input": steps_of(scale_of(input_tensor)),
        "stands_for": stands_for,
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
        "pull": _pull(plan, writer, state),
        "uses": uses,
        "loss_call": _loss_call(plan),
        "begin": [writer.call(each, {**writer.places(learnt=False), **state}) for each in programs.begin],
        "sequential": isinstance(plan.optimizer, ClosedForm),
        "rule": _rule(plan),
        "hidden": programs.hidden.size if programs.hidden else 0,
        "detects": isinstance(plan.optimizer, Mahalanobis),
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
        "activate": (ACTIVATE_FIXED if plan.fixed else ACTIVATE)[plan.loss.task],
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
        "choice": _written,
        "written": number_literal if plan.fixed else literal,
        "number": "mt_number" if plan.fixed else "float",
        "disuse": int(plan.learner.disuse * 86400) if plan.fixed else literal(plan.learner.disuse * 86400),
        "rows": rows,
    }
    templates = environment()

    def render(template: str, identity: int) -> str:
        return templates.get_template(template).render(**context, identity=identity)

    # the identity covers the program and the weights: a state saved by any other build is not read as it is
    identity = zlib.crc32(render("device.c.jinja", 0).encode() + render("device.h.jinja", 0).encode() + base)
    return {
        f"{name}.h": render("device.h.jinja", identity),
        f"{name}.c": render("device.c.jinja", identity),
        f"{name}_base.c": render("base.c.jinja", identity),
        f"{name}_base.bin": base,
    }


ACTIVATE_FIXED = {"MT_REGRESSION": "NULL", "MT_BINARY": "mt_sigmoid_fixed_all", "MT_MULTICLASS": "mt_softmax_fixed"}
ACTIVATE = {"MT_REGRESSION": "NULL", "MT_BINARY": "mt_sigmoid_all", "MT_MULTICLASS": "mt_softmax"}
"""Logits to probabilities, in the runtime."""
VERBS_OF_LEARNER = (
    ("learning_mode", "uses"), ("forget", ""), ("forget_last", "uses"), ("forget_since", "seconds"), ("reset", ""),
    ("save", ""),
)  # fmt: skip
"""Calls that the runtime's do the work of, and what they take."""


def _structure(plan: Plan, layout: Layout) -> int:
    """CRC-32 of what learns, by names, shapes and types, of the contexts it is kept apart by, and of the frozen
    weights that it was learnt for. In integers also of their scales, but not of learning rates, constants there too."""
    learns = {tensor.name for tensor in (*plan.programs.trained, *plan.programs.constants)}
    step = plan.programs.step
    if plan.fixed and step is not None:
        learns |= {name for node in step.graph.nodes if node.updates for name in node.inputs}
    frozen = base_bytes([each for each in layout.base if each.tensor.name not in learns])
    contexts = [(place, context.edges) for place, context in plan.contexts]
    apart = repr(contexts) if contexts else ""
    learnt = repr([(each.name, each.shape, each.dtype) for each in plan.programs.trained])
    return zlib.crc32((learnt + apart + _scales(plan)).encode() + frozen)


def _scales(plan: Plan) -> str:
    """What one step means of the integers that learn and of those they are multiplied with."""
    if not plan.fixed:
        return ""
    tensors = (*plan.programs.trained, *plan.programs.cut, plan.graph.tensor(plan.graph.inputs[0]))
    kept = [each.quantization for each in tensors if each.quantization is not None]
    return repr([(each.scale.tolist(), each.zero_point.tolist()) for each in kept])


def _people_note(plan: Plan) -> str:
    """What the people in the struct are."""
    learner = plan.learner
    if learner.sets == 1:
        return "whoever uses it"
    if learner.parts == 1:
        return "one of each profile"
    return f"number profile * {learner.parts} + context"


def _loss_call(plan: Plan) -> str:
    size = plan.programs.head.graph.tensor(plan.programs.head.graph.outputs[-1]).size
    written = number_literal if plan.fixed else literal
    delta = "" if plan.loss.delta is None else f"{written(plan.loss.delta)}, "
    return f"mt_{plan.loss.operator}{'_fixed' if plan.fixed else ''}(output, target, NULL, {delta}{size})"
