"""Give every command wrong files in every place: each must be refused in one line, unless it is what it should be.

    python -m benchmarks.malformed_inputs [--damaged 20]

Classes: a valid file of another kind (also those that are none of the program's); a file that is cut short; random
damage to bytes or words; and what is no file that can be read (a folder, a device, a link to itself, a pipe without a
writer). Counted are tracebacks and internal errors, crashes, hangs, outputs left by a run that failed, and files of
another kind that were taken although they are not in `MEANT`. A file that is cut or damaged may still be a valid one.
"""

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import mutations
from benchmarks.forked import run
from benchmarks.simulated import write_genotypes, write_traits

SAMPLES, VARIANTS = 40, 300
SECONDS = 30.0

FIT = "fit -q --grm g.bed --pheno y.csv --out out.npz"
SCAN = "scan -q --refit 0 --out out.parquet"
PLACES = {
    "phenotypes": ("y.csv", "fit -q --grm g.bed --out out.npz --pheno FILE"),
    "covariates": ("x.csv", f"{FIT} --covar FILE"),
    "samples to keep": ("list.txt", f"{FIT} --keep FILE"),
    "variants of the matrix": ("names.txt", f"{FIT} --grm-extract FILE"),
    "trait design": ("A.csv", f"{FIT} --trait-design FILE"),
    "configuration": ("c.toml", f"{FIT} --config FILE"),
    "matrix": ("K.csv", "fit -q --pheno y.csv --out out.npz --grm FILE"),
    "matrix without names": ("K.txt", "fit -q --pheno y.csv --out out.npz --grm FILE --grm-id list.txt"),
    "names of the matrix": ("list.txt", "fit -q --pheno y.csv --out out.npz --grm K.txt --grm-id FILE"),
    "null model": ("null.npz", f"{SCAN} --null FILE"),
    "genotypes": ("g.bed", f"{SCAN} --geno FILE"),
    "variants to scan": ("names.txt", f"{SCAN} --extract FILE"),
    "sets": ("sets.txt", f"{SCAN} --sets FILE"),
    "contrast": ("A.csv", f"{SCAN} --test c=FILE"),
    "result table": ("scan.parquet", "export -q --out out.tsv FILE"),
    "result table to check": ("scan.parquet", "export -q --check FILE"),
    "null model to print": ("null.npz", "export -q --out out.tsv FILE"),
}
"""Where a file is given: a right one, and the command with FILE in its place."""

GENOTYPES = {"g.bed", "g.bim", "g.fam"}
WITH_SAMPLES = {"y.csv", "x.csv", "list.txt", "g.fam", "K.csv"}
MEANT = {
    "phenotypes": {"x.csv"},
    "covariates": {"y.csv"},
    "samples to keep": WITH_SAMPLES,
    "variants of the matrix": {"sets.txt", "scan.tsv"},
    "matrix": {"g.bed", "y.csv", "x.csv"},
    "matrix without names": {"K.npy"},
    "names of the matrix": {"g.fam", "y.csv", "x.csv", "K.csv"},
    "configuration": {"empty"},
    "genotypes": {"g.bed"},
    "variants to scan": {"sets.txt", "scan.tsv"},
    "sets": {"g.bim", "scan.tsv"},
    "result table": {"null.npz"},
    "result table to check": {"null.npz"},
    "null model to print": {"scan.parquet"},
}
"""Files of another kind that are right in a place, too: a phenotype file begins with samples, and a
line of any table may name a set and its variants, which is said where few of them are there."""


@dataclass
class Tally:
    """What happened in one class."""

    tried: int = 0
    taken: int = 0
    wrong: Counter[str] = field(default_factory=Counter)


def main() -> int:
    """Try everything and print what happened; the exit code is 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--damaged", type=int, default=20, help="random damages for each place")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="malformed") as folder:
        os.chdir(folder)
        kinds = make_files()
        for place, (right, command) in PLACES.items():
            if run(command.replace("FILE", right).split()).code:
                raise RuntimeError(command)
            clean_up()
            for case, name, meant in cases(place, right, kinds, options.damaged, rng):
                tally = tallies.setdefault(case, Tally())
                tally.tried += 1
                what = attempt(command.replace("FILE", name))
                if what == "taken" and meant:
                    tally.taken += 1
                elif what is not None:
                    tally.wrong[f"{what}: {name} as {place}"] += 1
        os.chdir("/")
    for case, tally in tallies.items():
        print(f"{case}: {tally.tried} tried, {tally.taken} taken as what they are, {tally.wrong.total()} wrong")
        for text, number in tally.wrong.items():
            print(f"    {number} {text}")
    return int(any(tally.wrong for tally in tallies.values()))


def make_files() -> tuple[str, ...]:
    """Valid files of every kind in this folder; their names."""
    write_genotypes(Path("g"), SAMPLES, VARIANTS, missing=0.01)
    write_traits(Path("y.csv"), SAMPLES, 2)
    write_traits(Path("x.csv"), SAMPLES, 1, seed=9)
    K = np.cov(np.random.default_rng(1).standard_normal((SAMPLES, 200)))
    np.savetxt("K.txt", K)
    np.save("K.npy", K)
    ids = [f"i{i}" for i in range(SAMPLES)]
    rows = (f"{ids[i]}," + ",".join(f"{x:.8g}" for x in K[i]) for i in range(SAMPLES))
    contents = {
        "K.csv": f"IID,{','.join(ids)}\n" + "\n".join(rows) + "\n",
        "list.txt": "".join(f"f{i} i{i}\n" for i in range(SAMPLES)),
        "names.txt": "".join(f"v{i}\n" for i in range(0, VARIANTS, 2)),
        "sets.txt": "".join(f"v{i} v{i + 1} v{i + 2}\n" for i in range(0, VARIANTS - 2, 30)),
        "A.csv": "trait,a\nt1,1\nt2,1\n",
        "c.toml": "[fit]\nthreads = 1\n",
        "page.html": "<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
        "script.sh": "#!/bin/sh\nkron2sum fit --pheno y.csv\n",
        "empty": "",
    }
    for name, content in contents.items():
        Path(name).write_text(content)
    for command in ("fit -q --pheno y.csv --grm g.bed", "scan -q --refit 0", "export -q --out scan.tsv"):
        if run(command.split()).code:
            raise RuntimeError(command)
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + random.Random(2).randbytes(500))
    return *sorted(name for name in os.listdir() if not name.endswith(".log")), "null.npz.log"


def cases(
    place: str, right: str, kinds: tuple[str, ...], damages: int, rng: random.Random
) -> Iterator[tuple[str, str, bool]]:
    """The class, the file, and whether the command may take it."""
    for name in kinds:
        if name != right:
            yield "a file of another kind", name, name in MEANT.get(place, set())
    content = Path(right).read_bytes()
    damage = mutations.damaged if b"\0" in content else mutations.text
    companions = [f"bad.{name.partition('.')[2]}" for name in GENOTYPES] if right == "g.bed" else []
    for name in companions:
        Path(name).write_bytes(Path(name.replace("bad", "g")).read_bytes())
    bad = f"bad{Path(right).suffix}"
    for k in range(12):
        Path(bad).write_bytes(content[: k * len(content) // 12])
        yield "a file that is cut short", bad, b"\0" not in content
    for _ in range(damages):
        Path(bad).write_bytes(damage(content, rng))
        yield "a damaged file", bad, True
    for name in (bad, *companions):
        Path(name).unlink(missing_ok=True)
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom")
    for name in ("missing", "folder", "folder/x", "loop", "pipe", *devices):
        yield "no file that can be read", name, name == "/dev/null" and place == "configuration"
    Path("folder").rmdir()
    for name in ("loop", "pipe"):
        Path(name).unlink()


def attempt(command: str) -> str | None:
    """What a command did with a wrong file: None for a refusal as it should be, "taken", or what is wrong."""
    ended = run(command.split(), seconds=SECONDS)
    left = clean_up()
    if ended.code is None:
        return "hang"
    if ended.code == 0:
        return "taken"
    if ended.code < 0:
        return f"ended by signal {-ended.code}"
    lines = [line for line in ended.said.splitlines() if ": warning: " not in line and not line.startswith("Try 'kron")]
    if "Traceback" in ended.said or "internal error" in ended.said:
        return f"not foreseen: {ended.said.splitlines()[-1][:150]}"
    if ended.code not in (1, 2, 3) or not lines or (len(lines) > 1 and ended.code != 2):
        return f"unclear: exit code {ended.code}, {len(lines)} lines"
    return "an output is left" if left else None


def clean_up() -> bool:
    """Remove the outputs; whether there was any but a log."""
    left = [name for name in os.listdir() if name.startswith(("out.", ".out."))]
    for name in left:
        os.unlink(name)
    return any(not name.endswith(".log") for name in left)


if __name__ == "__main__":
    sys.exit(main())
