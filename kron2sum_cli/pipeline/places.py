"""How ``--chr`` and ``--region`` are read; apart from the settings, since this imports numpy."""

from kron2sum_cli.genotypes.chromosomes import Region, parse_chromosomes, parse_region

__all__ = ["Region", "parse_chromosomes", "parse_region"]
