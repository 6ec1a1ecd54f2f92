"""Plans of devices that live whole lives (life.c) under the sanitizers, all in one program."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from microtune.compiler.layout import Layout, lay_out
from microtune.compiler.planned import Plan, target_size
from microtune.compiler.sources import write_sources
from microtune.toolchain import compile_program

LIFE = Path(__file__).parent / "life.c"
PORT = Path(__file__).parents[2] / "src/microtune/targets"
TASKS = {"MT_REGRESSION": 0, "MT_BINARY": 1, "MT_MULTICLASS": 2}


def _described(name: str, plan: Plan) -> str:
    """What life.c must know of a device."""
    output = plan.programs.head.graph.tensor(plan.programs.head.graph.outputs[-1]).size
    layout = lay_out(plan)
    saved = layout.saved
    known = {
        "DEVICE": name, "CALL(verb)": f"{name}_##verb", "LIFE": f"life_{name}", "INPUTS": len(plan.inputs),
        "OUTPUTS": output, "TARGETS": target_size(plan), "TASK": TASKS[plan.loss.task],
        "PROFILES": plan.learner.profiles, "CONTEXTS": plan.learner.parts, "SENSES": int(bool(plan.sensors)),
        "RECOGNISES": int(plan.learner.recognise), "LOGS": int(plan.learner.log > 0),
        "SAVED": f"{saved}u", "STORAGE_BYTES": f"(2u * MT_STORE_SLOT({saved}u, 256u))",
        "WHOLE(saved)": _whole(plan, layout),
    }  # fmt: skip
    defined = "".join(f"#define {key} {value}\n" for key, value in known.items())
    undone = "".join(f"#undef {key.partition('(')[0]}\n" for key in known)
    return f'#include "{name}.c"\n{defined}#include "life.c"\n{undone}'


def _whole(plan: Plan, layout: Layout) -> str:
    """That biases which learn as integers stay within 2^30, of everybody."""
    first = layout.field("parameters").offset
    checks = [
        f"life_is_bias((saved) + {first + person * layout.person + each.offset}u, {each.tensor.size}u)"
        for person in range(layout.sets)
        for each in layout.parameters
        if plan.programs.rounds and each.tensor.dtype == "int32"
    ]
    return " && ".join(checks) or "((void)(saved), 1)"


def live(plans: Mapping[str, Plan], folder: Path, lives: int = 3) -> dict[str, int]:
    """How many updates each of the devices finished in so many lives; none of them may fail.

    The devices' own C is included into one source with life.c: compiled together, they cost a third.
    """
    sources: set[Path] = set()
    calls = []
    text = ""
    for name, plan in plans.items():
        written = write_sources(plan, name, folder)
        sources.update(path for path in written if path.name.startswith("mt_") or path.name == f"{name}_base.c")
        text += _described(name, plan)
        calls.append(f'    failed += life_tell("{name}", life_{name}, {lives}u);\n')
    (folder / "life.c").write_text(LIFE.read_text())
    (folder / "lives.c").write_text(
        text + "int main(void)\n{\n    int failed = 0;\n" + "".join(calls) + "    return failed;\n}\n"
    )
    program = compile_program(
        [*sorted(sources), folder / "lives.c", PORT / "memory_port.c"], [folder, PORT], folder / "lives", sanitize=True
    )
    found = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    rows = [line.split() for line in found.stdout.splitlines()]
    told = {name: (int(updates), int(line)) for name, updates, line in rows}
    failed = {name: f"line {line} of life.c" for name, (_, line) in told.items() if line}
    assert (found.returncode, found.stderr, failed) == (0, "", {}), found.stderr[-3000:]
    assert set(told) == set(plans)
    return {name: updates for name, (updates, _) in told.items()}
