"""Moved to `fitting`."""

from kron2sum_cli.model.fitting import starting_axes

__all__ = ["starting_axes"]
