"""Source formats: each is read into a graph by one file here."""

from microtune.frontends.load import load

__all__ = ["load"]
