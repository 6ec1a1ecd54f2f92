"""Floating point is found where it is, and nowhere else: by instruction with a unit for it, by call without."""

from pathlib import Path

import pytest

from microtune.targets import Target, target
from microtune.targets.arithmetic import floating_point_in
from microtune.targets.image import read_image
from microtune.toolchain import compile_image

SOURCE = """
#include <stdint.h>
int32_t whole(int32_t *a, const int8_t *b, uint32_t n);
float mean(const float *a, uint32_t n);
int32_t rounded(const float *a);
int above(const double *a);
int32_t whole(int32_t *a, const int8_t *b, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) { a[i] += b[i] * 3; sum += (int64_t)a[i] * b[i]; }
    return (int32_t)(sum >> 16) / (int32_t)(n + 1u);
}
float mean(const float *a, uint32_t n)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < n; i++) { sum += a[i]; }
    return sum / (float)n;
}
int32_t rounded(const float *a) { return (int32_t)*a; }
int above(const double *a) { return *a > 0.5; }
"""
CORES = ("cortex-m0", "cortex-m4", "cortex-m33", "cortex-m55", "riscv32")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("arithmetic")
    (folder / "both.c").write_text(SOURCE)
    return {core: compile_image([folder / "both.c"], [], folder / f"{core}.elf", core) for core in CORES}


@pytest.mark.parametrize("core", CORES)
def test_floating_point_is_found_by_function(images: dict[str, Path], core: str) -> None:
    found = floating_point_in(images[core])
    assert {each.partition(":")[0] for each in found} == {"mean", "rounded", "above"}
    chosen: Target = target(core)
    assert any("vadd.f32" in each for each in found if each.startswith("mean")) == chosen.fpu
    assert any("call of __" in each for each in found if each.startswith("mean")) != chosen.fpu
    assert any("call of __" in each for each in found if each.startswith("above"))  # no core here has doubles


@pytest.mark.parametrize("core", CORES)
def test_integers_have_none(images: dict[str, Path], core: str, tmp_path: Path) -> None:
    source = images[core].parent / "both.c"
    image = compile_image([source], [], tmp_path / "whole.elf", core, keep=["whole"])
    assert read_image(image).symbol("whole") and floating_point_in(image) == ()
