"""What people write on a command line, as update schemes and optimisers: ``head:2``, ``sparse:3=0.5,biases=4``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microtune.errors import PlanError
from microtune.tuning.bayes import Bayes
from microtune.tuning.optimizers import RLS, SGD, Adam, RMSProp
from microtune.tuning.schemes import Adapter, Bias, Full, Head, LoRA, NormAffine, Sparse


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"{text!r} is not a number") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise PlanError(f"{text!r} is not a whole number") from None


def _plain(make: Callable[[], Any]) -> Callable[[str], Any]:
    """For what takes no number."""

    def choose(text: str) -> Any:
        if text:
            raise PlanError(f"{make.__name__} takes no number, not {text!r}")
        return make()

    return choose


def _sparse(text: str) -> Sparse:
    """``24=0.25,27=0.5,biases=20``: layers, by weight, name or number, with the fraction of their input channels that
    learns; and how many of the last layers' biases."""
    chosen: dict[str | int, float] = {}
    biases = None
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not name or not equals:
            raise PlanError(f"{part!r} is no choice of sparse: write LAYER=FRACTION, as in sparse:24=0.25,biases=20")
        if name == "biases":
            biases = _whole(value)
        else:
            chosen[int(name) if name.isdigit() else name] = _number(value)
    return Sparse(chosen, biases_from=biases)


# name -> how its argument becomes a scheme
SCHEMES: dict[str, Callable[[str], Any]] = {
    "full": _plain(Full),
    "head": lambda text: Head(_whole(text or "1")),
    "bias": _plain(Bias),
    "normaffine": _plain(NormAffine),
    "adapter": lambda text: Adapter(_whole(text or "8")),
    "lora": lambda text: LoRA(_whole(text or "4")),
    "sparse": lambda text: _sparse(text),
}
OPTIMIZERS: dict[str, Callable[[str], Any]] = {
    "sgd": lambda text: SGD(lr=_number(text or "0.05")),
    "momentum": lambda text: SGD(lr=_number(text or "0.02"), momentum=0.9),
    "adam": lambda text: Adam(lr=_number(text or "0.001")),
    "rmsprop": lambda text: RMSProp(lr=_number(text or "0.001")),
    "rls": lambda text: RLS(forgetting=_number(text or "1")),
    "bayes": _plain(Bayes),
}


def _choose(text: str, known: dict[str, Callable[[str], Any]], what: str) -> Any:
    """``head:2`` -> known["head"]("2")."""
    name, _, argument = text.partition(":")
    if name not in known:
        raise PlanError(
            f"unknown {what} {text!r}. Known: {', '.join(known)}; with a number as in '{next(iter(known))}:1'"
        )
    return known[name](argument)


def scheme(text: str) -> Any:
    """The update scheme a text such as ``lora:4`` names. Raises PlanError for another text."""
    return _choose(text, SCHEMES, "update scheme")


def optimizer(text: str) -> Any:
    """The optimiser a text such as ``sgd:0.05`` names. Raises PlanError for another text."""
    return _choose(text, OPTIMIZERS, "optimiser")
