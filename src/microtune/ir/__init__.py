"""Intermediate representation: tensors with static shapes, nodes, graphs, a verifier and a printer."""

from microtune.ir.graph import Graph, Node
from microtune.ir.printer import format_graph
from microtune.ir.tensor import Quantization, Tensor, constant
from microtune.ir.verify import verify

__all__ = ["Graph", "Node", "Quantization", "Tensor", "constant", "format_graph", "verify"]
