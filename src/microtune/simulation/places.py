"""Where worlds and people come from: the gallery, a Python file of the user's, or the package alone."""

from __future__ import annotations

from microtune import gallery
from microtune.errors import MicrotuneError
from microtune.package import Package
from microtune.python_files import from_file
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
