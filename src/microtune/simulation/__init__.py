"""Simulated people who drive a learning device: who they are, what they set, what they really want."""

from microtune.simulation.driver import Driver, Record
from microtune.simulation.generic import generic_world
from microtune.simulation.habits import CHANGE_AT, Habit
from microtune.simulation.life import Life, Use, Uses, live
from microtune.simulation.many import Summary, Week, simulate
from microtune.simulation.people import PEOPLE, Person
from microtune.simulation.places import find_person, find_world
from microtune.simulation.world import Preference, World, exactly, on_weekend

__all__ = [
    "CHANGE_AT",
    "PEOPLE",
    "Driver",
    "Habit",
    "Life",
    "Person",
    "Preference",
    "Record",
    "Summary",
    "Use",
    "Uses",
    "Week",
    "World",
    "exactly",
    "find_person",
    "find_world",
    "generic_world",
    "live",
    "on_weekend",
    "simulate",
]
