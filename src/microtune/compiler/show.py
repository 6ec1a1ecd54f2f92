"""Print any stage of a compilation."""

from __future__ import annotations

from collections.abc import Sequence

from microtune.compiler.emit import emit
from microtune.compiler.passes.pack_weights import PackedWeight
from microtune.compiler.planned import Plan
from microtune.errors import PlanError
from microtune.ir import format_graph

STAGES = ("graph", "backward", "schedule", "memory", "c")


def packed_lines(weights: Sequence[PackedWeight], saved: int) -> list[str]:
    """A line for each weight that is stored packed, and what they save; no line where none is."""
    found = [
        f"  {each.name}: {each.bytes} bytes as {each.form} for {each.dense}, {100 * each.zeros:.0f} % zeros"
        for each in weights
    ]
    return [f"weights stored packed: flash is at least {saved} bytes smaller", *found] if found else []


def show_stage(plan: Plan, stage: str, name: str) -> str:
    """The text of one of ``STAGES``: the model; what learns; node order; the arena; the generated C."""
    programs = [each for each in (plan.programs.backbone, plan.programs.head, plan.programs.step) if each]
    match stage:
        case "graph":
            return format_graph(plan.graph)
        case "backward":
            return format_graph(programs[-1].graph)
        case "schedule":
            return "\n".join(
                f"{each.graph.name}: {' '.join(node.name for node in each.graph.nodes)}" for each in programs
            )
        case "memory":
            lines = []
            for each in programs:
                lines.append(f"{each.graph.name}: {each.arena.bytes} bytes, lower bound {each.arena.bound}")
                for buffer in each.arena.buffers:
                    tensors = " = ".join(buffer.tensors)
                    lines.append(
                        f"  [{buffer.offset:6}] {buffer.bytes:6} bytes, live {buffer.first} to {buffer.last}: {tensors}"
                    )
            return "\n".join([*lines, *packed_lines(plan.programs.packing.weights, plan.programs.packing.saved)])
        case "c":
            return str(emit(plan, name)[f"{name}.c"])
        case _:
            raise PlanError(f"unknown stage {stage!r}. Known: {', '.join(STAGES)}")
