"""``fit --loco`` against fits made by hand without each chromosome: the same likelihoods, and in what time.

    python benchmarks/leave_one_chromosome_out.py --data DIR [--pheno FILE] [--chromosomes 3]

DIR holds mouse_hs1940.{bed,bim,fam} (the example of GEMMA: Debian package gemma-doc). The time of ``fit --loco`` is
that of a whole process, as a multiple of a ``fit`` without it.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.processes import KRON2SUM, paired, seconds
from kron2sum_cli.files.null_file import read_null


def main() -> None:
    """Print the multiple, and the differences by chromosome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pheno", type=Path, default=None, help="default: mouse_cd8_mch.csv of DIR")
    parser.add_argument("--chromosomes", type=int, default=100, help="how many of them to fit by hand")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    stem = options.data / "mouse_hs1940"
    pheno = options.pheno or options.data / "mouse_cd8_mch.csv"
    fit = (*KRON2SUM, "fit", "-q", "--pheno", pheno, "--grm", f"{stem}.bed")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        one, loco, by_hand, kept = (folder / name for name in ("one.npz", "loco.npz", "by_hand.npz", "kept.txt"))
        many, single, ratio = paired([(*fit, "--loco", "--out", loco)], [(*fit, "--out", one)], options.runs)
        nulls = read_null(str(loco)).chromosomes
        print(f"fit {single:.2f} s, fit --loco {many:.2f} s with {len(nulls)} chromosomes: {ratio:.2f} times")
        print("chromosome    lml of --loco          by hand  difference")
        variants = [line.split()[:2] for line in stem.with_suffix(".bim").read_text().splitlines()]
        for chromosome, summary in list(nulls.items())[: options.chromosomes]:
            kept.write_text("".join(f"{name}\n" for where, name in variants if where != chromosome))
            seconds((*fit, "--grm-extract", kept, "--out", by_hand))
            lml = read_null(str(by_hand)).whole.lml
            print(f"{chromosome:>10} {summary.lml:16.8f} {lml:16.8f}  {summary.lml - lml:10.1e}", flush=True)


if __name__ == "__main__":
    main()
