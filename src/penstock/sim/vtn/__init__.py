"""A VTN of OpenADR 3.1 for tests and demonstrations: the grid operator's server, on loopback."""

from penstock.sim.vtn.access import Client, Role
from penstock.sim.vtn.server import Vtn, serve

__all__ = ["Client", "Role", "Vtn", "serve"]
