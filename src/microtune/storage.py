"""A file that plays the non-volatile memory of a device, as a ``mt_port``."""

from __future__ import annotations

import ctypes
from pathlib import Path

from microtune.errors import DeviceError

SECTOR = 256
UNIT, HEADER = 32, 64  # MT_STORE_UNIT and MT_STORE_HEADER in runtime/mt_store.h

_READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
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
        ("now", ctypes.c_void_p),
        ("may_learn", ctypes.c_void_p),
    ]


class _Wear(ctypes.Structure):
    _fields_ = [("saves", ctypes.c_uint32), ("erases", ctypes.c_uint32)]


class Storage:
    """Two slots of a device's state in a file. Writes go through to the file at once, byte ranges in place."""

    def __init__(self, path: Path, saved: int, slots: int = 2) -> None:
        slot = (HEADER + (saved + UNIT - 1) // UNIT * UNIT + SECTOR - 1) // SECTOR * SECTOR
        self.path, self.size, self._saved = path, slots * slot, saved
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            found = self._file.seek(0, 2)
            if found == 0:
                self._file.write(b"\xff" * self.size)
        except OSError as error:
            raise DeviceError(
                f"the state file {path} cannot be opened: {error.strerror}", "MT_STORAGE_FAILED"
            ) from error
        # a memory of another size was cut short, or is no state file at all
        self.damaged = found not in (0, self.size)
        # the callbacks must outlive the port
        self._callbacks = (_READ(self._read), _READ(self._write), _ERASE(self._erase))
        self.port = Port(None, *self._callbacks, self.size, SECTOR, 0, None, None)

    def erases(self, library: ctypes.CDLL, sequence: int) -> int:
        """Of the most worn sector so far, from the number of the newest save."""
        wear = _Wear()
        library["mt_store_wear"](ctypes.byref(self.port), self._saved, sequence, ctypes.byref(wear))
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
