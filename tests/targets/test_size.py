"""Sizes and symbols as other tools see them, and the code checks: no malloc, no libm, no soft float on an
FPU.
"""

from pathlib import Path

import pytest

from microtune.errors import ToolchainError
from microtune.targets import Target, target, targets
from microtune.targets.disassembly import is_forbidden, is_soft_float, soft_float_calls, undefined_symbols
from microtune.targets.size import image_size
from microtune.toolchain import compile_image, compile_objects

HERE = Path(__file__).parent


def test_image_size_counts_what_the_program_holds(kernel_image: Path) -> None:
    size = image_size(kernel_image)
    assert (size.data, size.cleared, size.ram) == (4, 4, 8)  # counter and cleared of kernel.c
    assert size.constants >= 16  # its table
    assert size.flash == size.code + size.constants + size.data
    assert sum(item.size for item in size.symbols if item.section == ".text") <= size.code
    assert {item.name for item in size.symbols} >= {"smooth", "counter", "cleared", "table"}


def test_more_constants_are_counted_exactly(core: Target, tmp_path: Path) -> None:
    sizes = []
    for count in (100, 300):
        source = tmp_path / "table.c"
        source.write_text(
            f"extern const int t[{count}]; const int t[{count}] = {{1}}; int at(int i); "
            "int at(int i) { return t[i]; }\n"
        )
        sizes.append(image_size(compile_image([source], [], tmp_path / "table.elf", core)).flash)
    assert sizes[1] - sizes[0] == 800


def test_soft_float_is_found_where_there_is_no_fpu(core: Target, kernel_image: Path) -> None:
    helpers = {call.helper for call in soft_float_calls(kernel_image) if call.caller == "smooth"}
    assert bool(helpers) != core.fpu
    if not core.fpu:
        wanted = {"__aeabi_fadd", "__aeabi_fdiv", "__aeabi_fmul"}, {"__addsf3", "__divsf3", "__mulsf3"}
        assert any(names <= helpers for names in wanted)


def test_undefined_symbols_show_malloc_and_libm(tmp_path: Path) -> None:
    source = tmp_path / "wants.c"
    source.write_text(
        "void *malloc(unsigned n); float expf(float x); float f(float x); "
        "float f(float x) { float *p = malloc(4u); *p = expf(x); return *p / 3.0f; }\n"
    )
    [wanted] = compile_objects([source], [], "cortex-m0")
    names = undefined_symbols(wanted)
    assert {name for name in names if is_forbidden(name)} == {"malloc", "expf"}
    assert {name for name in names if is_soft_float(name)} == {"__aeabi_fdiv"}


def test_catalogue_is_unique_and_answers_by_name() -> None:
    names = [item.name for item in targets()]
    assert len(set(names)) == len(names)
    assert {"host", "wasm32", "cortex-m0", "cortex-m4", "cortex-m33"} <= set(names)
    with pytest.raises(ToolchainError, match=r"cortex-m9.*cortex-m4.*Boards: .*nano-33-ble"):
        target("cortex-m9")
