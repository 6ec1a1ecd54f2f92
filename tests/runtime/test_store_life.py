"""The store lives through power cuts at random instants on flash that behaves like flash (SPEC C10, issue 4).

flash_life.c simulates the flash and runs the lives in C; here is which flash, and what must come of it.
"""

import ctypes
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtune.toolchain import compile_library

from .test_store import HEADER, RUNTIME, UNIT

HERE = Path(__file__).parent
PLACES = ("erasing", "payload", "header", "mark", "done")
GIVEN = ["sector", "slots", "spare", "unit", "bytes", "erased", "strict", "seed", "cuts", "rots"]
FOUND = ["before", "after", "torn_whole", "finished", "rotten", "lost", "mixed", "breaches", "status", "failed_at"]
LARGEST = 131072  # MAX_FLASH of flash_life.c
# nRF52: 4 bytes; STM32G4: 8, with error correction; STM32U5: 16, likewise; STM32H7: 32, likewise; STM32L0 erases to
# zero; a serial chip takes bytes and writes a page of 256 at once
CHIPS = {
    "bytes": {"unit": 1, "sector": 256},
    "nrf52": {"unit": 4, "sector": 4096},
    "stm32l0": {"unit": 4, "sector": 256, "erased": 0x00},
    "stm32g4": {"unit": 8, "sector": 2048, "strict": 1},
    "stm32u5": {"unit": 16, "sector": 4096, "strict": 1, "slots": 3},
    "stm32h7": {"unit": 32, "sector": 1024, "strict": 1, "slots": 4},
    "serial": {"unit": 256, "sector": 4096},
}


class Life(ctypes.Structure):
    """``life`` of flash_life.c."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in GIVEN),
        ("at", ctypes.c_uint32 * len(PLACES)),
        *((name, ctypes.c_uint32) for name in FOUND),
    ]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    sources = [RUNTIME / "mt_store.c", HERE / "flash_life.c"]
    output = tmp_path_factory.mktemp("lives") / "lives.so"
    return ctypes.CDLL(str(compile_library(sources, [RUNTIME], output, strict=True)))


def live(lives: ctypes.CDLL, **chosen: int) -> Any:
    """A life; fails when a state was lost or mixed, or the store broke a rule of flash."""
    life = Life(**{"slots": 2, "bytes": 500, "erased": 0xFF, "seed": 1, "rots": 6, **chosen})
    result = lives.flash_life(ctypes.byref(life))
    told = {name: getattr(life, name) for name in GIVEN + FOUND}
    assert result == 0, told
    assert (life.lost, life.mixed, life.breaches) == (0, 0, 0), told
    assert sum(life.at) == life.cuts == life.before + life.after, told
    return life


@pytest.mark.parametrize("chip", CHIPS)
def test_a_hundred_thousand_power_cuts(lives: ctypes.CDLL, chip: str) -> None:
    """On each chip: every cut leaves the state before or the one after, whole; rot of the newest is noticed."""
    life = live(lives, cuts=15_000, bytes=700, seed=2026, **CHIPS[chip])
    # cuts fell everywhere, and both outcomes, torn slots that were whole, and rot really came up
    assert min(life.at) > 10, dict(zip(PLACES, life.at, strict=True))
    assert min(life.before, life.after, life.finished) > 1000
    assert min(life.torn_whole, life.rotten) > 100


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_a_hundred_thousand_power_cuts_on_every_chip(lives: ctypes.CDLL, chip: str) -> None:
    live(lives, cuts=100_000, bytes=900, seed=4, **CHIPS[chip])


@settings(max_examples=150, deadline=None)
@given(
    sector=st.sampled_from([32, 64, 256, 512, 1024, 2048, 4096]),
    slots=st.integers(2, 9),
    size=st.one_of(st.integers(1, 200), st.integers(200, 9000)),
    unit=st.sampled_from([1, 2, 4, 8, 16, 32, 128, 256]),
    erased=st.sampled_from([0xFF, 0x00]),
    strict=st.integers(0, 1),
    spare=st.integers(0, 31),
    seed=st.integers(1, 2**32 - 1),
)
def test_any_flash(lives: ctypes.CDLL, **chosen: int) -> None:
    size = chosen.pop("size")
    slot = -(-(HEADER + -(-size // UNIT) * UNIT) // chosen["sector"]) * chosen["sector"]
    chosen["slots"] = max(2, min(chosen["slots"], LARGEST // slot - 1))
    live(lives, bytes=size, cuts=150, **chosen)
