"""Instruction counts are exact and repeatable; painted stacks are what the code writes."""

import struct

import capstone
import pytest
import unicorn

from microtune.errors import EmulationError
from microtune.targets.emulator import Emulator


def single_steps(emulator: Emulator, symbol: str, *arguments: int) -> int:
    """An independent count: a hook on every executed instruction, plus those an IT block executed as nothing."""
    uc = emulator._uc
    trace: list[int] = []
    uc.ctl_flush_tb()
    hook = uc.hook_add(unicorn.UC_HOOK_CODE, lambda _uc, address, _size, _data: trace.append(address))
    emulator.call(symbol, *arguments)
    uc.hook_del(hook)
    uc.ctl_flush_tb()
    if emulator.image.machine != "arm":
        return len(trace)
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    skipped = 0
    for index, address in enumerate(trace):
        half = struct.unpack("<H", emulator.read(address, 2))[0]
        if half & 0xFF00 == 0xBF00 and half & 0xF:  # IT: the lowest set bit of the mask gives the length
            length = 4 - ((half & -half).bit_length() - 1)
            block = list(disassembler.disasm(emulator.read(address + 2, 16), address + 2, length))
            following = trace[index + 1 : index + 1 + length]
            skipped += sum(item.address not in following for item in block)
    return len(trace) + skipped


def samples(emulator: Emulator, form: str, count: int) -> int:
    address = emulator.allocate(4 * count)
    kind = float if form == "f" else int
    emulator.write(address, struct.pack(f"<{count}{form}", *(kind(i * 7919 % 1000) - 500 for i in range(count))))
    return address


@pytest.mark.parametrize(("symbol", "form"), [("smooth", "f"), ("count_up", "i")])
def test_block_count_equals_single_stepping(kernel: Emulator, symbol: str, form: str) -> None:
    # A fresh copy of the input for each run: smooth works in place.
    counts = [kernel.measure(symbol, samples(kernel, form, 200), 200).instructions for _ in range(2)]
    stepped = single_steps(kernel, symbol, samples(kernel, form, 200), 200)
    assert counts == [stepped, stepped]
    assert kernel.measure(symbol, samples(kernel, form, 100), 100).instructions < stepped


def test_a_known_program_has_a_known_count(kernel: Emulator) -> None:
    # constant_at: nothing but straight code; the listing is short enough to count by its size.
    function = kernel.image.symbol("constant_at")
    code = [
        address
        for address in range(function.address, function.address + function.size, 2)
        if kernel.image.is_code(address)
    ]
    count = kernel.measure("constant_at", 1).instructions
    assert len(code) / 2 <= count <= len(code)  # two or four bytes each, no branch before the return


def test_painted_stack(kernel: Emulator) -> None:
    assert 1000 <= kernel.measure("deep", 1000).stack <= 1100
    assert kernel.measure("bump").stack <= 8


def test_memory_runs_out_with_a_word(kernel: Emulator) -> None:
    with pytest.raises(EmulationError, match="more ram="):
        kernel.allocate(1 << 28)


def test_targets_that_are_no_core_are_refused(kernel_image: object) -> None:
    with pytest.raises(EmulationError, match="not a core"):
        Emulator(str(kernel_image), "wasm32")
