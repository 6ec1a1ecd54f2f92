"""The little devices, built once per session."""

import ctypes

import pytest

from microtune.toolchain import compile_library

from .little_device import HERE, INCLUDE, SOURCES, Little


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The learner with the little devices around it."""
    output = tmp_path_factory.mktemp("learner") / "little.so"
    sources = [*SOURCES, HERE / "little_device.c"]
    built = ctypes.CDLL(str(compile_library(sources, INCLUDE, output, strict=True)))
    assert built.little_size() == ctypes.sizeof(Little)
    return built
