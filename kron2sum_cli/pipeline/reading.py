"""How files that the command line itself reads are opened; apart from other modules, since it imports nothing more."""

from kron2sum_cli.tables.inputs import open_input

__all__ = ["open_input"]
