"""Reading a device's storage from outside: its states, counters and log, whatever build wrote them."""

from microtune.inspection.image import Image, Log, Record, Slot, State, Wear, inspect_bytes, read_image
from microtune.inspection.picture import log_picture

__all__ = ["Image", "Log", "Record", "Slot", "State", "Wear", "inspect_bytes", "log_picture", "read_image"]
