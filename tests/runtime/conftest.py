"""What is built once per session: the little devices, the sensors."""

import ctypes
from collections.abc import Iterator

import pytest

from microtune.toolchain import compile_library

from .little_device import HERE, INCLUDE, SOURCES, Little
from .sensors_probe import Probe


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The learner with the little devices around it."""
    output = tmp_path_factory.mktemp("learner") / "little.so"
    sources = [*SOURCES, HERE / "little_device.c"]
    built = ctypes.CDLL(str(compile_library(sources, INCLUDE, output, strict=True)))
    assert built.little_size() == ctypes.sizeof(Little)
    return built


@pytest.fixture(scope="session")
def sensors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    """mt_sensors.c and mt_recognition.c in a program under the sanitizers, which must have found nothing at its end."""
    probe = Probe(tmp_path_factory.mktemp("sensors"))
    yield probe
    probe.close()
