"""Pictures for the camera: scikit-learn's handwritten digits scaled up, or a folder of a user's own images.

Digits: 1797 pictures of 8 x 8, 16 levels of ink (Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten
Digits), as scikit-learn ships them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 128  # pixels of the net's input
INK = 16  # the darkest level of a digit
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
LEAST = 2  # pictures of a class: one to learn from, one to test


class DataError(Exception):
    """Pictures that cannot be used; the message says which and what would work."""


@dataclass(frozen=True)
class Pictures:
    """``images`` (n, 128, 128, 3) uint8, ``labels`` (n,) numbers of ``classes``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Row numbers: the device learns from ``learn`` and is tested on ``test``, which it never sees otherwise."""

    learn: NDArray[np.int64]
    test: NDArray[np.int64]


def enlargement(size: int, side: int = SIDE) -> NDArray[np.float32]:
    """(side, size): each row blends the two nearest of ``size`` pixels, centre on centre (bilinear), edges repeated."""
    place = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    rows = np.arange(side)
    matrix = np.zeros((side, size), np.float32)
    np.add.at(matrix, (rows, low), 1 - (place - low))
    np.add.at(matrix, (rows, high), place - low)
    return matrix


def digits() -> Pictures:
    """The handwritten digits, bright ink on black, 8 x 8 to 128 x 128 (bilinear), the same in all three colours."""
    from sklearn.datasets import load_digits

    stored = load_digits()
    matrix = enlargement(stored.images.shape[1])
    large = matrix @ stored.images.astype(np.float32) @ matrix.T
    grey = np.round(large * (255 / INK)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
    return Pictures(images, stored.target.astype(np.int64), tuple(str(name) for name in stored.target_names))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DataError("reading image files needs Pillow: pip install pillow (the digits need nothing)") from None
    return Image


def _read(library: Any, file: Path) -> NDArray[np.uint8]:
    """The middle square of an image file, scaled to 128 x 128 (bilinear, antialiased)."""
    try:
        with library.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, library.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as an image: {error}") from None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIDE, SIDE), library.Resampling.BILINEAR), np.uint8)


def folder(path: Path) -> Pictures:
    """Images of a folder with a subfolder for each class, classes and files by name. Raises DataError."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder. It would hold one subfolder of images for each class")
    library = _pillow()
    found = {
        each.name: sorted(file for file in each.iterdir() if file.suffix.lower() in SUFFIXES)
        for each in sorted(path.iterdir())
        if each.is_dir() and not each.name.startswith(".")
    }
    if len(found) < 2:
        raise DataError(f"{path} has {len(found)} subfolders; one for each of at least two classes is needed")
    for name, files in found.items():
        if len(files) < LEAST:
            raise DataError(
                f"{path / name} has {len(files)} images; at least {LEAST} are needed ({', '.join(SUFFIXES)})"
            )
    images = [_read(library, file) for files in found.values() for file in files]
    labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
    return Pictures(np.stack(images), labels.astype(np.int64), tuple(found))


def split(labels: Sequence[int] | NDArray[np.int64], seed: int, share: float = 1 / 3) -> Split:
    """A random ``share`` of each class to test, at least one of it, the rest to learn; both shuffled."""
    random, given = np.random.default_rng(seed), np.asarray(labels)
    learn, test = [], []
    for each in np.unique(given):
        rows = random.permutation(np.flatnonzero(given == each))
        count = max(1, round(share * len(rows)))
        test.append(rows[:count])
        learn.append(rows[count:])
    return Split(random.permutation(np.concatenate(learn)), random.permutation(np.concatenate(test)))


def as_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the net expects: -1 to 1, which int8 keeps in steps of 1/127.5."""
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1)
