"""The examples that ship with microtune: where they are, and how one is loaded."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from microtune.errors import MicrotuneError

_SCRIPT = "run.py"


def examples_folder() -> Path:
    """The folder of all examples: inside an installed package, or beside ``src`` in a clone."""
    package = Path(__file__).parent
    for folder in (package / "examples", package.parent.parent / "examples"):
        if folder.is_dir():
            return folder
    raise MicrotuneError(f"no examples beside {package}: install microtune again, or run from a clone of it")


def example_names() -> tuple[str, ...]:
    """Names of the examples there are, sorted."""
    return tuple(sorted(script.parent.name for script in examples_folder().glob(f"*/{_SCRIPT}")))


def example_folder(name: str) -> Path:
    """The folder of one example. Raises MicrotuneError, listing those there are, for any other name."""
    names = example_names()
    if name not in names:
        raise MicrotuneError(f"there is no example '{name}'. Examples: {', '.join(names)}")
    return examples_folder() / name


def load_example(name: str) -> ModuleType:
    """Import ``run.py`` of an example the way ``python run.py`` would: its neighbours import by plain name.

    Modules of the same names from elsewhere, another example's among them, make room in ``sys.modules``. Raises
    MicrotuneError with what to install for a package that is missing.
    """
    folder = example_folder(name)
    for path in folder.glob("*.py"):
        present = sys.modules.get(path.stem)
        if present is not None and Path(getattr(present, "__file__", None) or "") != path:
            del sys.modules[path.stem]
    location = str(folder)
    if location in sys.path:
        sys.path.remove(location)
    sys.path.insert(0, location)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(Path(_SCRIPT).stem)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "microtune") or (folder / f"{package}.py").exists():
            raise  # a mistake in the example, not something to install
        extras = "demo,torch" if package.startswith("torch") else "demo"
        raise MicrotuneError(f"the example '{name}' needs {package}: pip install 'microtune[{extras}]'") from None
