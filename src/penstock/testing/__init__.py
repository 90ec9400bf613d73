"""Conformance kits: a backend of the shell (`core.ports`) is right when it passes its kit."""
