"""Simulated people who drive a learning device: who they are, what they set, what they really want."""

from microtune.simulation.people import PEOPLE, Habit, Life, Person, Preference, Use, World, live

__all__ = ["PEOPLE", "Habit", "Life", "Person", "Preference", "Use", "World", "live"]
