"""Moved to `climbing`."""

from kron2sum_cli.model.climbing import BOUNDARY, CERTIFIED_GAIN, Certificate

__all__ = ["BOUNDARY", "CERTIFIED_GAIN", "Certificate"]
