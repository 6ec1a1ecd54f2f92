"""Where worlds and people come from: the gallery, a Python file of the user's, or the package alone."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from microtune import gallery
from microtune.errors import MicrotuneError
from microtune.package import Package
from microtune.simulation.generic import generic_world
from microtune.simulation.people import PEOPLE, Person
from microtune.simulation.world import World

_FILE = "world.py"
GENERIC = "generic"


def gallery_worlds() -> tuple[str, ...]:
    """Names of the examples that have a world."""
    return tuple(name for name in gallery.example_names() if (gallery.example_folder(name) / _FILE).is_file())


def find_world(package: Package, name: str | None = None) -> World:
    """The world called ``name``: ``FILE.py:NAME``, an example of the gallery, or ``generic``.

    None: the gallery's world of the package's own name if that takes the same number of inputs, else the generic one.
    """
    size = package.input_size
    if name is None:
        own = package.name if package.name in gallery_worlds() else GENERIC
        world = _world(package, own)
        return world if len(world.inputs) == size else generic_world(package)
    world = _world(package, name)
    if len(world.inputs) != size:
        raise MicrotuneError(
            f"world '{name}' has {len(world.inputs)} inputs ({', '.join(world.inputs)}); '{package.name}' takes {size}"
        )
    return world


def find_person(name: str) -> Person:
    """The person called ``name``, of ``PEOPLE`` or of a file: ``FILE.py:NAME``."""
    if name in PEOPLE:
        return PEOPLE[name]
    if ".py" not in name:
        raise MicrotuneError(
            f"no person '{name}' in the simulator. There are: {', '.join(PEOPLE)}, and your own as FILE.py:NAME"
        )
    found = from_file(name)
    if not isinstance(found, Person):
        raise MicrotuneError(f"{name} is no microtune.simulation.Person but a {type(found).__name__}")
    return found


def _world(package: Package, name: str) -> World:
    if name == GENERIC:
        return generic_world(package)
    if ".py" in name:
        found = from_file(name)
    elif name in gallery_worlds():
        found = from_file(f"{gallery.example_folder(name) / _FILE}:WORLD")
    else:
        raise MicrotuneError(
            f"no world '{name}'. There are: {', '.join(gallery_worlds())}, {GENERIC}, and your own as FILE.py:NAME"
        )
    if not isinstance(found, World):
        raise MicrotuneError(f"{name} is no microtune.simulation.World but a {type(found).__name__}")
    return found


def from_file(where: str) -> Any:
    """``FILE.py:NAME``, with the modules beside the file importable while it is read."""
    file, _, name = where.rpartition(":")
    path = Path(file)
    if not file.endswith(".py") or not name.isidentifier():
        raise MicrotuneError(f"'{where}' names nothing in a Python file: write it as FILE.py:NAME")
    if not path.is_file():
        raise MicrotuneError(f"{path}: no such file")
    # a module name of its own, so that two files called world.py can be read in one process
    module_name = f"microtune_simulated_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise MicrotuneError(f"{path} cannot be read as Python")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses of the file look for their module here
        sys.path.insert(0, str(path.resolve().parent))
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise MicrotuneError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(path.resolve().parent))
    if not hasattr(module, name):
        raise MicrotuneError(f"{path} defines no '{name}'")
    return getattr(module, name)
