"""Metadata of made-up scans, for tests of tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.scan_metadata import NullScale, ScanMetadata, ScannedNull, Span, TestOptions

HASH = "0123456789abcdef" * 4


def scan_metadata_of(traits: Sequence[str], span: Span, tests: Sequence[str] = (), **changes: Any) -> ScanMetadata:
    """A scan of 1,000 samples whose trait axes are the traits."""
    p = len(traits)
    values: dict[str, Any] = {
        "version": "1.2.3",
        "null": ScannedNull(
            hash=HASH,
            method="reml",
            lml=-12.5,
            C0=0.5 + 0.5 * np.eye(p),
            C1=np.eye(p),
            samples=1000,
            covariates=("intercept", "age"),
        ),
        "nulls": (NullScale(None, np.eye(p), 1000.0 * p, 1000 * p, 998 * p),),
        "traits": tuple(traits),
        "filters": {"maf": 0.001},
        "settings": TestOptions(("any", *tests), "single", "lr", 1e-4),
        "inputs": {"geno": (FileRecord("v.bed", 12345, HASH),)},
        "span": span,
        "counts": {"variants read": span.stop - span.start + 7, "variants tested": span.stop - span.start},
    }
    return ScanMetadata(**(values | changes))
