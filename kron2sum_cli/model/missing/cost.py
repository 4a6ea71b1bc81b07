"""Moved to `fitting`."""

from kron2sum_cli.model.missing.fitting import MissingCost, missing_cost

__all__ = ["MissingCost", "missing_cost"]
