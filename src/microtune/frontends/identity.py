"""``identity``: a net that does nothing, for a head that reads the inputs as they are."""

from __future__ import annotations

from microtune.errors import ModelError
from microtune.frontends.builder import check_size, safe_name
from microtune.ir import Graph, Tensor


def identity(inputs: int, name: str = "features") -> Graph:
    """A net of so many inputs whose output is its input: ``mt.plan(mt.identity(15), optimizer=mt.Mahalanobis(), ...)``.

    Raises ModelError for a number below 1 or an absurd one.
    """
    if not isinstance(inputs, int) or isinstance(inputs, bool):
        raise ModelError(f"identity({inputs!r}): a number of inputs")
    check_size((inputs,), "identity")
    x = Tensor("x", (inputs,))
    return Graph(safe_name(name), {x.name: x}, (), (x.name,), (x.name,))
