"""Which update scheme serves a model best within a budget: measured on the user's data, with the device's own C."""

from microtune.search.frontier import Frontier, Point
from microtune.search.run import search

__all__ = ["Frontier", "Point", "search"]
