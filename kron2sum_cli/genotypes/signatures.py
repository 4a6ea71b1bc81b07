"""First bytes by which genotype files are told apart, whatever reads the rest of them."""

PLINK = b"\x6c\x1b"
"""PLINK 1 and 2; the third byte says which, and the layout."""
VARIANT_MAJOR = b"\x01"
SAMPLE_MAJOR = b"\x00"

BGEN = b"bgen"
BGEN_AT = 16
"""Where it stands in the file."""
