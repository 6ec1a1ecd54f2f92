"""E6, B1: the camera learns by the generated C in under 256 KB of RAM; its pictures are what the net expects."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune import gallery

EXAMPLE = gallery.example_folder("camera")
LIMIT = 262_144
IMAGES = 900


@pytest.fixture
def camera() -> ModuleType:
    return gallery.load_example("camera")


@pytest.fixture
def data(camera: ModuleType) -> ModuleType:
    found: ModuleType = camera.data
    return found


def command(folder: Path, *arguments: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """The example as a user runs it; ``code`` runs before it."""
    words = [str(EXAMPLE / "run.py"), *map(str, arguments)]
    start = [sys.executable, "-c", f"{code}\nimport runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], "
             "run_name='__main__')", *words] if code else [sys.executable, *words]  # fmt: skip
    return subprocess.run(
        start,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_bilinear_enlargement(data: ModuleType) -> None:
    """Centre on centre: 2 pixels to 4 by hand; any size against the definition of linear interpolation."""
    np.testing.assert_allclose(data.enlargement(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    r = np.random.default_rng(1)
    for size in (1, 3, 8, 127, 128):
        values = r.normal(size=size)
        centres = (np.arange(size) + 0.5) / size
        wanted = np.interp((np.arange(128) + 0.5) / 128, centres, values)
        np.testing.assert_allclose(data.enlargement(size) @ values, wanted, atol=1e-6)


def test_digits_are_pictures_the_net_expects(data: ModuleType) -> None:
    pictures = data.digits()
    assert pictures.images.shape == (1797, 128, 128, 3) and pictures.images.dtype == np.uint8
    assert pictures.classes == tuple("0123456789") and set(pictures.labels) == set(range(10))
    assert pictures.images.min() == 0 and pictures.images.max() == 255
    ends = data.as_input(np.array([0, 255], np.uint8))
    assert ends.dtype == np.float32 and ends.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_learnt_is_never_tested(data: ModuleType, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], [2, 30, 61]))
    split = data.split(labels, seed)
    assert sorted([*split.learn, *split.test]) == list(range(len(labels)))
    assert [int(np.sum(labels[split.test] == each)) for each in range(3)] == [1, 10, 20]
    again, other = data.split(labels, seed), data.split(labels, seed + 1)
    assert split.learn.tolist() == again.learn.tolist() != other.learn.tolist()


def test_a_folder_of_images(data: ModuleType, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.zeros((100, 300, 3), np.uint8)
            pixels[:, 100:200] = colour  # only the middle square is of the class's colour
            image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    (tmp_path / "red" / "notes.txt").write_text("no image")
    pictures = data.folder(tmp_path)
    assert pictures.classes == ("blue", "red") and pictures.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pictures.images.shape == (6, 128, 128, 3)
    assert (pictures.images[0] == (0, 0, 255)).all() and (pictures.images[5] == (255, 0, 0)).all()


def test_folders_that_cannot_be_used_are_explained(data: ModuleType, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(data.DataError, match="no such folder"):
        data.folder(tmp_path / "missing")
    (tmp_path / "one").mkdir()
    with pytest.raises(data.DataError, match="has 1 subfolders; one for each of at least two classes"):
        data.folder(tmp_path)
    (tmp_path / "two").mkdir()
    for name in ("one", "two"):
        image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name / "a.png")
    with pytest.raises(data.DataError, match="one has 1 images; at least 2"):
        data.folder(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name / "b.png").write_bytes(b"\x89PNG, but no more of it")
    with pytest.raises(data.DataError, match=r"b\.png cannot be read as an image"):
        data.folder(tmp_path)


def test_missing_parts_end_in_one_sentence(tmp_path: Path) -> None:
    models = command(tmp_path, "--models", tmp_path)
    assert models.returncode == 1 and models.stdout == ""
    assert models.stderr.startswith("camera: there is no network 'mbv2-w0.35'")
    assert "https://github.com/mit-han-lab/tiny-training" in models.stderr and "Traceback" not in models.stderr
    (tmp_path / "images").mkdir()
    pillow = command(tmp_path, "--data", tmp_path / "images", code="import sys; sys.modules['PIL'] = None")
    assert pillow.returncode == 1 and pillow.stderr.startswith("camera: reading image files needs Pillow")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the example prints with ``--json`` after 900 images, measured before and behind them only."""
    camera = gallery.load_example("camera")
    if not camera.DIRECTORY.is_dir():
        pytest.skip(f"the published networks are not in {camera.DIRECTORY}; they do not ship with microtune")
    out, printed = tmp_path_factory.mktemp("camera"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(camera, "CHECKPOINTS", (1.0,))
        patch.setattr(sys, "argv", ["run.py", "--json", "--images", str(IMAGES), "--out", str(out)])
        camera.main()
    return json.loads(printed.getvalue())


@pytest.mark.slow
def test_it_learns_under_256_kilobytes(found: Any) -> None:
    """By the generated C, on pictures of ten digits: chance becomes knowledge."""
    sparse = found["schemes"]["Sparse"]
    assert found["limit"] == LIMIT and all(each["ram"] < LIMIT for each in found["schemes"].values())
    assert sparse["arena"] + sparse["stack"] < sparse["ram"] and sparse["arena_bound"] <= sparse["arena"]
    assert set(sparse["accuracy"]) == {"0", str(IMAGES)}
    assert sparse["accuracy"][str(IMAGES)] >= max(70.0, sparse["accuracy"]["0"] + 30.0)
    manifest = mt.open_package(sparse["package"]).manifest
    trained = sum(int(np.prod(each["shape"])) for each in manifest["tensors"]["trained"])
    assert sparse["parameters"] == trained
    assert all(each["learnt"] for each in found["life"]) and len(found["life"]) == gallery.load_example("camera").SHOWN


@pytest.mark.slow
def test_a_hundred_times_fewer_parameters(found: Any) -> None:
    """Against Full 100 times fewer parameters, at no more than 1 point less accuracy than Head."""
    head, sparse = found["schemes"]["Head"], found["schemes"]["Sparse"]
    assert 100 * sparse["parameters"] <= found["full_parameters"]
    assert sparse["accuracy"][str(IMAGES)] >= head["accuracy"][str(IMAGES)] - 1.0
