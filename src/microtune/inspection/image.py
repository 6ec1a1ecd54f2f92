"""What a device's storage holds, read without knowing its build: states, metrics, the log.

States begin with ``MTS1`` or ``MTS2`` (``runtime/mt_store.c``), records of the log are units of 32 bytes that begin
with ``L1`` (``runtime/mt_log.h``); both carry a checksum, so what is found is what was written. Nothing here reads
inputs or labels: samples lie behind what is read of a state.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from microtune.errors import MicrotuneError

UNIT = 32  # bytes of a record, and of a program unit
LARGEST = 64 * 1024 * 1024  # bytes of a file that is read
PAYLOAD_AT = {b"MTS1": 24, b"MTS2": 64}  # behind the begin of a slot
RECOGNISED = 0xFFFF  # MT_RECOGNISE as a profile

# The one declaration of what mt_metrics holds, by the version of mt_state: counters of 32 bits, then one number. A
# state of version 0 has no version; it was written before there were any.
_COUNTERS = (
    "predictions", "fallbacks", "observations", "overrides", "refused", "accepted", "rolled_back", "forgets", "resets",
    "saves", "recoveries",
)  # fmt: skip
METRICS: dict[int, tuple[str, ...]] = {
    0: (*_COUNTERS, "mean_error"),
    1: (*_COUNTERS, "suspect", "changes", "mean_error"),
}
# Where the metrics begin in mt_state, and likewise what of mt_person, behind people_at, is told.
METRICS_AT = {0: 36, 1: 36}
# MT_NUMBER_KIND: numbers are floats, or fixed-point; as struct has them, and what stands for 1.
FLOATS = 0
NUMBERS = {FLOATS: ("f", 1), 1: ("i", 2**16)}
# Of version 1, by that kind: uses, hits, recent, confidence.
PERSON = {kind: struct.Struct(f"<24xIII8x{letter}") for kind, (letter, _) in NUMBERS.items()}

# mt_log_kind, in words, and what its detail says.
KINDS: dict[int, tuple[str, str]] = {
    1: ("start", "status"),
    2: ("update taken", ""),
    3: ("update dropped", ""),
    4: ("change of habits", "uses"),
    5: ("sensor suspect", "flags"),
    6: ("profile", ""),
    7: ("forget", ""),
    8: ("reset", ""),
    9: ("uses", ""),
    10: ("learning mode", "on"),
    11: ("return", "days"),
}
_RECORD = struct.Struct("<2sBBIIIBBBBfHHI")


@dataclass(frozen=True)
class Slot:
    """A header of a state: ``at`` its byte in the file, ``bytes`` of its payload, ``identity`` of the build as in
    a manifest. ``whole``: its checksum is right."""

    at: int
    format: str
    identity: str
    sequence: int
    bytes: int
    whole: bool


@dataclass(frozen=True)
class Person:
    """One person in one context. ``right``: share of the last ``recent`` (at most 32) answers; None: of none."""

    profile: int
    context: int
    uses: int
    recent: int
    right: float | None
    confidence: float | None


@dataclass(frozen=True)
class State:
    """The newest whole state. ``version`` None: not known here, and nothing but its header is told. ``profile`` None:
    whoever is recognised."""

    identity: str
    sequence: int
    version: int | None
    profile: int | None = 0
    teaching: int = 0
    metrics: dict[str, int | float | None] | None = None
    people: tuple[Person, ...] = ()


@dataclass(frozen=True)
class Wear:
    """``erases`` of each sector of the most worn of ``slots``, by the number of the newest save."""

    slots: int
    saves: int
    erases: int


@dataclass(frozen=True)
class Record:
    """A record of the log. ``right``: share of the last answers (at most 32); ``taken``, ``dropped``: updates so far,
    modulo 65536; ``time``: seconds of the device's clock, 0 without one."""

    number: int
    kind: str
    detail: int
    time: int
    uses: int
    profile: int
    right: float | None
    recent: int
    confidence: float
    error: float | None
    taken: int
    dropped: int


@dataclass(frozen=True)
class Log:
    """``records`` in the order in which they were written. ``missing``: numbers between them that are not there;
    ``unknown``: records of a layout newer than this version's; ``erases``: of the most worn sector so far, as the
    newest number tells."""

    at: int
    bytes: int
    records: tuple[Record, ...]
    missing: int
    unknown: int
    erases: int


@dataclass(frozen=True)
class Image:
    """What is in a storage file. ``newest`` is an index of ``slots``; ``notes`` say what could not be read."""

    bytes: int
    slots: tuple[Slot, ...]
    newest: int | None
    state: State | None
    wear: Wear | None
    log: Log | None
    notes: tuple[str, ...]


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read a file that holds a device's storage, or part of it, as ``Device(state=...)`` writes it or as it was read
    out of a chip. Raises MicrotuneError when there is no trace of a device in it."""
    file = Path(path)
    try:
        size = file.stat().st_size
        if size > LARGEST:
            raise MicrotuneError(f"{file} has {size:,} bytes; no device's storage is larger than {LARGEST:,}")
        data = file.read_bytes()
    except OSError as error:
        raise MicrotuneError(f"{file} cannot be read: {error.strerror}") from error
    found = inspect_bytes(data)
    if not found.slots and found.log is None and not _is_erased(data):
        raise MicrotuneError(
            f"{file} is not the storage of a device: its {len(data):,} bytes hold no state and no record of a log. "
            "Give the file named as state= of a Device, or what was read out of a chip's storage"
        )
    if not data:
        raise MicrotuneError(f"{file} is empty")
    return found


def inspect_bytes(data: bytes) -> Image:
    """What is in a storage; damage is told in the notes, never raised."""
    slots = tuple(_slots(data))
    whole = [each for each in slots if each.whole]
    newest = max(whole, key=lambda each: _distance(each.sequence, whole[0].sequence), default=None)
    log = _log(data, whole)
    notes = []
    damaged = len(slots) - len(whole)
    if damaged:
        notes.append(f"{damaged} of {len(slots)} states {'is' if damaged == 1 else 'are'} not whole")
    state = None
    if newest is not None:
        start = newest.at + PAYLOAD_AT[newest.format.encode()]
        state = _state(newest, data[start : start + newest.bytes])
        if state.version is None:
            notes.append("the newest state is of a version that is not known here: only its header is told")
    elif not slots and log is None and _is_erased(data):
        notes.append("erased: nothing was saved yet")
    if log is not None and log.unknown:
        notes.append(f"{log.unknown} records of the log are of a version that is not known here")
    if newest is None:
        return Image(len(data), slots, None, None, None, log, tuple(notes))
    room = log.at if log is not None else len(data)
    return Image(len(data), slots, slots.index(newest), state, _wear(whole, newest, room), log, tuple(notes))


def _is_erased(data: bytes) -> bool:
    return not data.strip(b"\xff") or not data.strip(b"\x00")


## States ##


def _distance(number: int, start: int) -> int:
    """How far a number of 32 bits that may wrap around is from another."""
    return (number - start + 0x80000000) % 0x100000000 - 0x80000000


def _slots(data: bytes) -> Iterator[Slot]:
    """Headers of both formats wherever one may be, but none that lies in a whole payload."""
    end = 0
    for match in re.finditer(rb"MTS[12]", data):
        at, kind = match.start(), match[0]
        if at < end or at % (8 if kind == b"MTS1" else UNIT) or at + PAYLOAD_AT[kind] > len(data):
            continue
        identity, sequence, size, checksum = struct.unpack_from("<4I", data, at + 4)
        start = at + PAYLOAD_AT[kind]
        whole = start + size <= len(data) and (
            zlib.crc32(memoryview(data)[start : start + size], zlib.crc32(data[at : at + 16])) == checksum
        )
        if not whole and size > LARGEST:
            continue  # four letters of something else
        end = start + size if whole else end
        yield Slot(at, kind.decode(), f"0x{identity:08X}", sequence, size, whole)


def _wear(whole: list[Slot], newest: Slot, room: int) -> Wear | None:
    """From where the states of one build lie: number n is in slot n modulo slots. None when that does not fit."""
    same = [each for each in whole if (each.identity, each.bytes) == (newest.identity, newest.bytes)]
    apart = math.gcd(*(each.at for each in same))
    least = PAYLOAD_AT[newest.format.encode()] + newest.bytes
    if apart < least:
        return None
    for divisor in range(1, apart // least + 1):
        stride = apart // divisor
        count = room // stride
        if apart % divisor == 0 and count >= 2 and all(each.sequence % count * stride == each.at for each in same):
            return Wear(count, newest.sequence, -(-newest.sequence // count))
    return None


def _number(value: float) -> float | None:
    """A float as JSON can hold it, in the digits that 32 bits have."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _metrics(version: int, payload: bytes, numbers: int = FLOATS) -> dict[str, int | float | None] | None:
    names, at = METRICS[version], METRICS_AT[version]
    if at + 4 * len(names) > len(payload):
        return None
    *counters, mean = struct.unpack_from(f"<{len(names) - 1}I{NUMBERS[numbers][0]}", payload, at)
    return dict(zip(names, [*counters, _number(mean / NUMBERS[numbers][1])], strict=True))


def _state(slot: Slot, payload: bytes) -> State:
    """The newest layout that the payload can be: its version stands first, and what it says must fit its length."""
    header = State(slot.identity, slot.sequence, None)
    if len(payload) < METRICS_AT[1]:
        return header
    version, profiles, contexts, numbers, people, size, inner, words, _, chosen, _, teaching = struct.unpack_from(
        "<4H5I2HI", payload
    )
    fits = people + profiles * contexts * size <= len(payload) and inner + 4 * words <= size
    metrics = _metrics(1, payload, numbers) if numbers in NUMBERS else None
    if version == 1 and profiles * contexts > 0 and fits and metrics is not None:
        persons = []
        for index in range(profiles * contexts if size >= PERSON[numbers].size else 0):
            uses, hits, recent, confidence = PERSON[numbers].unpack_from(payload, people + index * size)
            if recent <= 32:
                right = (hits & (1 << recent) - 1).bit_count() / recent if recent else None
                profile, context = divmod(index, contexts)
                persons.append(Person(profile, context, uses, recent, right, _number(confidence / NUMBERS[numbers][1])))
        in_use = None if chosen == RECOGNISED else chosen
        return State(slot.identity, slot.sequence, 1, in_use, teaching, metrics, tuple(persons))
    metrics = _metrics(0, payload)
    reserved, uses, hits, recent, confidence = struct.unpack_from("<HIIIf", payload, 14)
    likely = reserved == 0 and recent <= 32 and hits >> recent == 0 and 0.0 <= confidence <= 1.0
    if metrics is None or not likely or not _adds_up(metrics, uses):
        return header
    right = hits.bit_count() / recent if recent else None
    person = Person(0, 0, uses, recent, right, _number(confidence))
    return State(slot.identity, slot.sequence, 0, 0, 0, metrics, (person,))


def _adds_up(metrics: dict[str, int | float | None], uses: int) -> bool:
    """Counters of a state without a version: what must be so if they are counters."""
    counted = {name: value or 0 for name, value in metrics.items()}
    return (
        metrics["mean_error"] is not None
        and uses <= counted["observations"] <= counted["predictions"]
        and counted["fallbacks"] <= counted["predictions"]
        and counted["overrides"] <= counted["observations"]
    )


## The log ##


def _record(unit: bytes) -> Record:
    _, kind, detail, number, time, uses, profile, right, recent, sure, error, taken, dropped, _ = _RECORD.unpack(unit)
    share = right / recent if 0 < recent <= 32 and right <= recent else None
    name = KINDS.get(kind, (f"kind {kind}", ""))[0]
    return Record(
        number, name, detail, time, uses, profile, share, recent, round(sure / 255, 3), _number(error), taken, dropped
    )


def _ring(found: list[tuple[int, int]], begin: int, end: int) -> int:
    """Units of the ring that records are in, from where each number is: number n is in unit n modulo the ring's.

    Two laps tell it. Of one lap: the smallest ring at the end of the storage that has all of them in their places.
    """
    first = min(unit for unit, _ in found)
    apart = math.gcd(*(_distance(number, found[0][1]) - (unit - found[0][0]) for unit, number in found))
    least = max(unit for unit, _ in found) - first + 1
    if apart:
        return max(apart, least)
    unit, number = found[0]
    fitting = (ring for ring in range(end - first, end - begin + 1) if (number - unit + end) % ring == 0)
    return next(fitting, least)


def _log(data: bytes, whole: list[Slot]) -> Log | None:
    """All whole records at multiples of 32 bytes that are not within a state."""
    taken = [(each.at, each.at + PAYLOAD_AT[each.format.encode()] + each.bytes) for each in whole]
    found: list[tuple[int, Record]] = []
    unknown = 0
    for match in re.finditer(rb"L[0-9]", data):
        at = match.start()
        unit = data[at : at + UNIT]
        if at % UNIT or len(unit) < UNIT or zlib.crc32(unit[:28]) != int.from_bytes(unit[28:], "little"):
            continue
        if any(begin <= at < end for begin, end in taken):
            continue
        if match[0] == b"L1":
            found.append((at // UNIT, _record(unit)))
        else:
            unknown += 1
    if not found:
        return Log(0, 0, (), 0, unknown, 0) if unknown else None
    first = found[0][1].number
    found.sort(key=lambda each: _distance(each[1].number, first))
    places = [unit for unit, _ in found]
    newest, oldest = found[-1][1].number, found[0][1].number
    missing = max(0, _distance(newest, oldest) + 1 - len({record.number for _, record in found}))
    end = max((stop for _, stop in taken if stop <= UNIT * min(places)), default=0)
    ring = _ring([(unit, record.number) for unit, record in found], -(-end // UNIT), len(data) // UNIT)
    records = tuple(record for _, record in found)
    return Log(
        UNIT * min(places), UNIT * (max(places) - min(places) + 1), records, missing, unknown, newest // ring + 1
    )
