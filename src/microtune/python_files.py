"""What users keep in Python files of their own and name as ``FILE.py:NAME``: worlds, people, nets."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from microtune.errors import MicrotuneError


def from_file(where: str) -> Any:
    """What ``FILE.py:NAME`` names; the modules beside the file can be imported while it is read.

    Raises MicrotuneError for another text, a file that cannot be read, and a name it does not define.
    """
    file, _, name = where.rpartition(":")
    path = Path(file)
    if not file.endswith(".py") or not name.isidentifier():
        raise MicrotuneError(f"'{where}' names nothing in a Python file: write it as FILE.py:NAME")
    if not path.is_file():
        raise MicrotuneError(f"{path}: no such file")
    # a module name of its own, so that two files called world.py can be read in one process
    module_name = f"microtune_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
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
