"""Kernels of the runtime in a process of their own, under the address and undefined-behaviour sanitizers.

One program holds every kernel asked for and answers calls on its standard input. Each array lies in memory of
exactly its size, so that a kernel that reads or writes one element beside it ends the process with a report.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from microtune.compiler.sources import runtime_directory
from microtune.ir import Node, Tensor
from microtune.ops import OPS, block_products, block_update, closed_form, closed_form_fixed, leaves
from microtune.ops.update import RULES
from microtune.toolchain import compile_program

# scalar inputs that a kernel takes by value
BY_VALUE = {
    "rate": "*(const float *)",
    "noise": "*(const uint32_t *)",
    "fixed_rate": "*(const int32_t *)",
    "correction": "*(const mt_adam_correction *)",
}

MAIN = """
static uint32_t number(void)
{
    uint32_t value = 0;
    if (fread(&value, sizeof value, 1, stdin) != 1) {
        exit(0);
    }
    return value;
}

static void *block(uint32_t size)
{
    void *memory = malloc(size);
    if (memory == NULL || (size > 0 && fread(memory, size, 1, stdin) != 1)) {
        exit(2);
    }
    return memory;
}

int main(void)
{
    for (;;) {
        const uint32_t entry = number(), blocks = number(), pointers = number(), ints = number(), floats = number();
        void *memory[16], *p[16];
        uint32_t sizes[16];
        for (uint32_t i = 0; i < blocks; ++i) {
            sizes[i] = number();
            memory[i] = block(sizes[i]);
        }
        for (uint32_t i = 0; i < pointers; ++i) {
            p[i] = memory[number()];
        }
        int32_t *n = block(ints * 4);
        float *f = block(floats * 4);
        entries[entry](p, n, f);
        for (uint32_t i = 0; i < blocks; ++i) {
            fwrite(memory[i], sizes[i], 1, stdout);
            free(memory[i]);
        }
        free(n);
        free(f);
        fflush(stdout);
    }
}
"""


def node_of(op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any]) -> tuple[Node, dict[str, Tensor]]:
    """A node over inputs of these shapes and types, and its tensors. Updates write over their first inputs."""
    rule = op.partition("_")[0]
    names = [f"in{index}" for index in range(len(inputs))]
    states, scalars = RULES[rule][:2] if rule in RULES else (0, ())
    if "int8" in op or "int32" in op:
        scalars = (*scalars, "noise") if scalars else ()
    if OPS[op] in (*block_update.OPS, *block_products.UPDATES):
        # the parameter and its states, and then no rate
        shapes = [Tensor("", each.shape, str(each.dtype)) for each in inputs]
        states, scalars = OPS[op].count(shapes, attributes) - 1, ("noise",)
    if op == "block_scale":
        names[1] = "fixed_rate"
    names[1 + states : 1 + states + len(scalars)] = scalars
    tensors = {name: Tensor(name, each.shape, str(each.dtype)) for name, each in zip(names, inputs, strict=True)}
    given = list(tensors.values())
    outputs = [f"out{index}" for index in range(OPS[op].count(given, attributes))]
    tensors |= {tensor.name: tensor for tensor in OPS[op].results(outputs, given, attributes)}
    heads = (*closed_form.OPS, *(each for each in closed_form_fixed.OPS if each.name != "dense_fixed"))
    updated = 3 if OPS[op] in heads else len(outputs) if rule in RULES else 0
    updated = 4 if op == "mahalanobis_learn" else 2 if OPS[op] in leaves.OPS else updated
    updated = 1 if op in ("kalman", "kalman_move") else updated
    updates = dict(zip(outputs[:updated], names, strict=False))
    return Node(op, op, tuple(names), tuple(outputs), attributes, updates), tensors


class SanitizedKernels:
    """``run(op, inputs, attributes)`` gives what the C of an operator makes of typed arrays."""

    def __init__(self, folder: Path, examples: Mapping[str, tuple[Sequence[np.ndarray], Mapping[str, Any]]]) -> None:
        """``examples``: {operator: (inputs, attributes)}, to know each kernel's arguments.

        Where an operator has several kernels, words behind its name tell the examples apart.
        """
        entries, self.numbers = [], dict[str, int]()
        for name, (inputs, attributes) in examples.items():
            op = name.partition(" ")[0]
            node, tensors = node_of(op, inputs, attributes)
            call = OPS[op].kernel(node, tensors)
            assert call is not None
            if call.function in self.numbers:
                continue
            counts = {str: 0, int: 0, float: 0}
            arguments = []
            for argument in call.arguments:
                place = {str: "p", int: "n", float: "f"}[type(argument)]
                by_value = BY_VALUE.get(argument, "") if isinstance(argument, str) else ""
                arguments.append(f"{by_value}{place}[{counts[type(argument)]}]")
                counts[type(argument)] += 1
            # a returned number goes behind the last pointer
            stored = "" if call.result is None else f"*(int32_t *)p[{counts[str]}] = "
            self.numbers[call.function] = len(self.numbers)
            entries.append(
                f"static void call_{call.function}(void **p, const int32_t *n, const float *f)\n"
                f"{{\n    (void)n, (void)f;\n    {stored}{call.function}({', '.join(arguments)});\n}}\n"
            )
        headers = sorted({OPS[name.partition(" ")[0]].header for name in examples})
        table = ", ".join(f"call_{function}" for function in self.numbers)
        source = folder / "kernels.c"
        source.write_text(
            "#include <stdio.h>\n#include <stdlib.h>\n"
            + "".join(f'#include "{header}"\n' for header in headers)
            + "\n".join(entries)
            + f"static void (*const entries[])(void **, const int32_t *, const float *) = {{{table}}};\n"
            + MAIN
        )
        program = compile_program([source], [runtime_directory()], folder / "kernels", sanitize=True)
        self.process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(
        self, op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any], over: int | None = None
    ) -> tuple[np.ndarray, ...]:
        """The outputs; ``over`` is the position of an input whose memory the first output takes."""
        node, tensors = node_of(op, inputs, attributes)
        call = OPS[op].kernel(node, tensors)
        assert call is not None
        memory = {name: np.ascontiguousarray(each) for name, each in zip(node.inputs, inputs, strict=True)}
        place = {name: index for index, name in enumerate(memory)}
        for name in node.outputs:
            taken = node.updates.get(name) or (node.inputs[over] if over is not None and name == "out0" else None)
            if taken is None:
                # all bits set, NaN for a float: an element that the kernel forgets is seen
                memory[name] = np.full(tensors[name].bytes, 255, np.uint8)
                place[name] = len(memory) - 1
            else:
                place[name] = place[taken]
        names = [each for each in call.arguments if isinstance(each, str)]
        names += [call.result] if call.result is not None else []
        ints = [each for each in call.arguments if isinstance(each, int)]
        floats = [each for each in call.arguments if isinstance(each, float)]
        message = [np.array([self.numbers[call.function], len(memory), len(names), len(ints), len(floats)], np.uint32)]
        for array in memory.values():
            message += [np.array([array.nbytes], np.uint32), array]
        message += [np.array([place[name] for name in names], np.uint32)]
        message += [np.array(ints, np.int32), np.array(floats, np.float32)]
        assert self.process.stdin and self.process.stdout and self.process.stderr
        try:
            self.process.stdin.write(b"".join(each.tobytes() for each in message))
            self.process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(self.process.stderr.read().decode()) from None
        blocks = []
        for array in memory.values():
            block = self.process.stdout.read(array.nbytes)
            if len(block) < array.nbytes:
                raise AssertionError(f"{call.function}: {self.process.stderr.read().decode()}")
            blocks.append(block)
        return tuple(
            np.frombuffer(blocks[place[name]], tensors[name].dtype).reshape(tensors[name].shape)
            for name in node.outputs
        )

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)
