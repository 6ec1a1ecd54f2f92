"""The static bound is never below the measured stack, and close to it (the manifest's promise)."""

from dataclasses import replace
from pathlib import Path

import pytest

from microtune.errors import EmulationError
from microtune.targets import Target
from microtune.targets.calls import CallTypes, read_call_types
from microtune.targets.emulator import Emulator
from microtune.targets.image import read_image
from microtune.targets.stack import stack_bound

# Calls whose worst path the arguments reach.
CASES = [
    ("through_table", (1, 5)),
    ("start", (1, 5)),
    ("start_pair", (1, 5)),
    ("large_frame", (3,)),
    ("divide", (12345,)),
]


@pytest.mark.parametrize(("symbol", "arguments"), CASES, ids=[case[0] for case in CASES])
def test_bound_holds_and_is_close(core: Target, stacks_image: Path, symbol: str, arguments: tuple[int, ...]) -> None:
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


def test_without_types_a_call_may_reach_every_function_whose_address_is_taken(stacks_image: Path) -> None:
    """As images of other compilers are: the types keep functions of another type out."""
    image = read_image(stacks_image)
    typed, untyped = stack_bound(image, "start"), stack_bound(replace(image, calls=CallTypes()), "start")
    assert untyped.size - typed.size >= 2500 and "big_pair" in dict(untyped.path)


def test_call_types_are_read_as_far_as_they_are_known(stacks_image: Path) -> None:
    calls, image = read_image(stacks_image).calls, read_image(stacks_image)
    own = {name: calls.own[image.symbol(name).address] for name in ("small_step", "big_step", "small_pair", "big_pair")}
    assert own["small_step"] == own["big_step"] != own["small_pair"] == own["big_pair"]
    assert calls.called[image.symbol("through_pair").address] == {own["big_pair"]}
    record = bytes([0, 1]) + bytes(4) + b"12345678"
    assert read_call_types(record, 1).own == {0: b"12345678"}
    assert read_call_types(bytes([9]) + record[1:], 1) == CallTypes()
    with pytest.raises(EmulationError, match="ends within a record"):
        read_call_types(record[:-1], 1)


@pytest.mark.parametrize("symbol", ["ping", "variable"])
def test_no_bound_is_an_error(stacks_image: Path, symbol: str) -> None:
    with pytest.raises(EmulationError, match="no bound for the stack"):
        stack_bound(stacks_image, symbol)
