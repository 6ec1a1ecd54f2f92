"""What is built once per session: the little devices, the sensors, the Bayesian head."""

import ctypes
from collections.abc import Iterator

import pytest

from microtune.targets.machine import HostMachine, Machine
from microtune.toolchain import compile_library

from .bayes_probe import RUNTIME
from .bayes_probe import SOURCES as BAYES
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


@pytest.fixture(scope="session")
def bayes_host(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """mt_bayes.c and its parts in this process."""
    return HostMachine(compile_library(BAYES, [RUNTIME], tmp_path_factory.mktemp("bayes") / "bayes.so", strict=True))
