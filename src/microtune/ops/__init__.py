"""Operators: shape rule, numpy reference, gradient rule and C kernel of each, declared once."""

from microtune.ops import dense, elementwise, least_squares, loss, update
from microtune.ops.op import KernelCall, Op

OPS: dict[str, Op] = {op.name: op for family in (dense, elementwise, loss, update, least_squares) for op in family.OPS}

__all__ = ["OPS", "KernelCall", "Op"]
