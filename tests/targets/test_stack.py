"""The static bound is never below the measured stack, and close to it (the manifest's promise)."""

from pathlib import Path

import pytest

from microtune.errors import EmulationError
from microtune.targets import Target
from microtune.targets.emulator import Emulator
from microtune.targets.stack import stack_bound

# Calls whose worst path the arguments reach.
CASES = [("through_table", (1, 5)), ("start", (1, 5)), ("large_frame", (3,)), ("divide", (12345,))]


@pytest.mark.parametrize(("symbol", "arguments"), CASES, ids=[case[0] for case in CASES])
def test_bound_holds_and_is_close(
    core: Target, stacks_image: Path, symbol: str, arguments: tuple[int, ...]
) -> None:
    bound = stack_bound(stacks_image, symbol)
    measured = Emulator(stacks_image, core).measure(symbol, *arguments).stack
    assert measured <= bound.size <= measured + 64
    assert bound.path[0][0] == symbol and sum(size for _, size in bound.path) == bound.size


def test_bound_holds_for_every_branch_of_a_switch(core: Target, stacks_image: Path) -> None:
    emulator, bound = Emulator(stacks_image, core), stack_bound(stacks_image, "choose").size
    worst = max(emulator.measure("choose", which, 9).stack for which in range(9))
    assert worst <= bound <= worst + 64


def test_candidates_narrow_an_indirect_call(stacks_image: Path) -> None:
    wide = stack_bound(stacks_image, "through_argument")
    narrow = stack_bound(stacks_image, "through_argument", {"through_argument": ["small_step"]})
    assert wide.size - narrow.size >= 360  # the arrays of the two candidates differ by that much


@pytest.mark.parametrize("symbol", ["ping", "variable"])
def test_no_bound_is_an_error(stacks_image: Path, symbol: str) -> None:
    with pytest.raises(EmulationError, match="no bound for the stack"):
        stack_bound(stacks_image, symbol)
