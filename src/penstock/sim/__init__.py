"""The simulated world: a power line between a pole and a car, and real charging sessions to run over it."""
