"""A file that plays the non-volatile memory of a device, as a ``mt_port``."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

from microtune.errors import DeviceError

SECTOR = 256
UNIT, HEADER = 32, 64  # MT_STORE_UNIT and MT_STORE_HEADER in runtime/mt_store.h

_READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
_NOW = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)
_MAY_LEARN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_ERASE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)


class Port(ctypes.Structure):
    """``mt_port`` of ``runtime/mt_port.h``."""

    _fields_ = [
        ("context", ctypes.c_void_p),
        ("read", _READ),
        ("write", _READ),
        ("erase", _ERASE),
        ("size", ctypes.c_uint32),
        ("sector", ctypes.c_uint32),
        ("log", ctypes.c_uint32),
        ("now", _NOW),
        ("may_learn", _MAY_LEARN),
    ]


class _Wear(ctypes.Structure):
    _fields_ = [("saves", ctypes.c_uint32), ("erases", ctypes.c_uint32)]


LARGEST = 64 * 1024 * 1024
"""Bytes of a file that can be somebody's state."""
LOG = 16 * SECTOR
"""Bytes of the metrics log behind the states, where a device keeps one: 128 records."""


def _seconds(clock: Callable[[], float], raised: list[BaseException]) -> Callable[[int | None], int]:
    """A clock as C calls it: one that fails stands still. Raises DeviceError for one that tells no seconds."""
    try:
        last = int(clock()) & 0xFFFFFFFF
    except (TypeError, ValueError, OverflowError) as error:
        raise DeviceError(f"clock={clock!r}: a function that tells seconds, as time.time does ({error})") from error

    def now(_context: int | None) -> int:
        nonlocal last
        try:
            last = int(clock()) & 0xFFFFFFFF
        except BaseException as error:
            raised.append(error)
        return last

    return now


def _permission(may_learn: Callable[[], bool], raised: list[BaseException]) -> Callable[[int | None], int]:
    """``may_learn`` as C calls it: one that fails does not allow it. Raises DeviceError for what is no function."""
    if not callable(may_learn):
        raise DeviceError(f"may_learn={may_learn!r}: a function that says whether learning is allowed now")

    def allowed(_context: int | None) -> int:
        try:
            return int(bool(may_learn()))
        except BaseException as error:
            raised.append(error)
            return 0

    return allowed


def port_of(
    storage: Storage | None,
    clock: Callable[[], float] | None,
    may_learn: Callable[[], bool] | None,
    raised: list[BaseException],
) -> Port | None:
    """The port of a device in this process; None where it has nothing of the kind. What the functions raise cannot
    pass through C: it is left in ``raised``."""
    if storage is None and clock is None and may_learn is None:
        return None
    callbacks = (_READ(), _READ(), _ERASE()) if storage is None else storage.callbacks
    size, log = (0, 0) if storage is None else (storage.size, storage.log)
    now = _NOW() if clock is None else _NOW(_seconds(clock, raised))
    allowed = _MAY_LEARN() if may_learn is None else _MAY_LEARN(_permission(may_learn, raised))
    return Port(None, *callbacks, size, SECTOR, log, now, allowed)


class Storage:
    """Two slots of a device's state in a file, and ``log`` bytes of metrics log behind them. Writes go through to the
    file at once, byte ranges in place. A file that is longer, of a build that saved more, stays as long as it is: what
    that build had learnt must be found."""

    def __init__(self, path: Path, saved: int, slots: int = 2, log: int = 0) -> None:
        slot = (HEADER + (saved + UNIT - 1) // UNIT * UNIT + SECTOR - 1) // SECTOR * SECTOR
        self.path, self.size, self.log, self._saved = path, slots * slot + log, log, saved
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            found = self._file.seek(0, 2)
            if found == 0:
                self._file.write(b"\xff" * self.size)
            elif self.size < found <= LARGEST:
                self.size = found // SECTOR * SECTOR
        except OSError as error:
            raise DeviceError(
                f"the state file {path} cannot be opened: {error.strerror}", "MT_STORAGE_FAILED"
            ) from error
        # a shorter memory was cut short; one of no whole sectors is no state file at all
        self.damaged = found not in (0, self.size)
        # the callbacks must outlive the port
        self.callbacks = (_READ(self._read), _READ(self._write), _ERASE(self._erase))

    def erases(self, library: ctypes.CDLL, port: Port, sequence: int) -> int:
        """Of the most worn sector so far, from the number of the newest save."""
        wear = _Wear()
        library["mt_store_wear"](ctypes.byref(port), self._saved, sequence, ctypes.byref(wear))
        return int(wear.erases)

    def _read(self, _context: int, address: int, data: int, size: int) -> int:
        try:
            self._file.seek(address)
            # a file shorter than the memory reads as erased behind its end
            ctypes.memmove(data, self._file.read(size).ljust(size, b"\xff"), size)
        except OSError:
            return 1
        return 0

    def _write(self, _context: int, address: int, data: int, size: int) -> int:
        try:
            self._file.seek(address)
            self._file.write(ctypes.string_at(data, size))
        except OSError:
            return 1
        return 0

    def _erase(self, _context: int, address: int, size: int) -> int:
        try:
            self._file.seek(address)
            self._file.write(b"\xff" * size)
        except OSError:
            return 1
        return 0
