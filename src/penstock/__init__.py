"""Penstock: machines that have never met trade a flowing good for flowing money."""

__version__ = "0.1.0"
