"""The readers that `fuzz_readers` tries: for each a valid file, how it is damaged, and how it is read."""

import contextlib
import io
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np

from benchmarks.mutations import Mutation, damaged, one_of, text
from benchmarks.simulated import write_genotypes, write_traits
from kron2sum_cli.cli import cli, run
from kron2sum_cli.cli.options import load_config
from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.files.sample_table import read_sample_table
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.files.scan_table import open_scan
from kron2sum_cli.files.text import read_id_list, read_name_list
from kron2sum_cli.files.trait_design import read_trait_design
from kron2sum_cli.files.trials import read_trial_table
from kron2sum_cli.genotypes.founders import open_founders
from kron2sum_cli.genotypes.genotype_table import read_map
from kron2sum_cli.genotypes.open import open_genotype_file
from kron2sum_cli.genotypes.relationship import open_relationship
from kron2sum_cli.genotypes.sample_files import read_fam, read_oxford_sample, read_psam
from kron2sum_cli.genotypes.variants import read_bim, read_pvar
from kron2sum_cli.scan.block import BlockResult
from kron2sum_cli.scan.resume import SUFFIX, finished_blocks
from kron2sum_cli.scan.set_members import read_sets

SAMPLES, VARIANTS = 30, 40
TAB = "\t"

Read = Callable[[str], str | None]
"""Reads the file of this name; what is wrong with what it found, if anything."""


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes
    ----------
    reader : its name
    name : the file that is damaged
    seeds : valid contents of it
    mutate : the damage
    read : the reader, on what else lies in the folder
    """

    reader: str
    name: str
    seeds: Sequence[bytes]
    mutate: Mutation
    read: Read


def targets(folder: Path) -> Iterator[Target]:
    """All readers, with their files in ``folder``."""
    write_genotypes(folder / "g", SAMPLES, VARIANTS, missing=0.03)
    write_traits(folder / "y.csv", SAMPLES, 2)
    lines = (folder / "g.bim").read_text().splitlines()
    on_two = (f"{1 + 2 * k // VARIANTS}\t{line.partition(TAB)[2]}\n" for k, line in enumerate(lines))
    (folder / "g.bim").write_text("".join(on_two))
    with contextlib.chdir(folder):
        for command in (
            "fit -q --pheno y.csv --grm g.bed --loco",
            "scan -q --refit 0",
            "scan -q --refit 0 --shard 1/2 --out half.parquet",
        ):
            if run(command.split()):
                raise RuntimeError(command)
        yield from _texts(folder)
        yield from _genotypes(folder)
        yield from _tables_of_genotypes(folder)
        yield from _matrices(folder)
        yield from _made(folder)


def _texts(folder: Path) -> Iterator[Target]:
    table = (folder / "y.csv").read_bytes()
    tables = [table, table.replace(b",", b"\t"), table.replace(b",", b" "), table.replace(b"FID,", b"#FID,")]
    codes = [b"IID,a,b\n" + b"".join(b"i%d,%d,%s\n" % (i, i, b"NA" if i % 3 else b"x") for i in range(9))]
    ids = [b"f0 i0\nf1 i1\nf2 i2\n", b"#FID\tIID\nf0\ti0\n", b"IID\ni0\ni1\n", b"i0\ni1\n"]
    names = [b"v0\nv1\nv2\n", b"CHR\tPOS\tSNPID\n1\t5\tv0\n1\t6\tv1\n", b"#CHROM POS ID\n1 5 v0\n"]
    config = b'[scan]\nmaf = 0.01\nthreads = 2\ntest = ["any", "common"]\n[fit]\nno-intercept = true\npheno = "y"\n'
    design = b"trait,a,b\nt1,1,0\nt2,-1,0.5\n"
    yield Target("phenotypes", "t", tables, text, _phenotypes)
    trial = b"line,env,yield\n" + b"".join(b"i%d,%d,%d.5\n" % (i % 5, i % 3, i) for i in range(20))
    yield Target("trial", "t", [trial, trial.replace(b",", b" "), trial.replace(b",7.5", b",NA")], text, _trial)
    yield Target("covariates", "t", codes, text, _covariates)
    yield Target("list of samples", "t", ids, text, lambda path: _done(read_id_list(path)))
    yield Target("list of variants", "t", names, text, lambda path: _done(read_name_list(path)))
    yield Target("sets", "t", [b"s1 v0 v1\ns2 1:5-100,v3\n", b"s1\tX:1-2\n"], text, lambda path: _done(read_sets(path)))
    yield Target("trait design", "t", [design, design.replace(b",", b" ")], text, _trait_design)
    yield Target("configuration", "t", [config], text, _configuration)


def _genotypes(folder: Path) -> Iterator[Target]:
    for suffix in ("fam", "bim", "bed"):
        shutil.copy(folder / f"g.{suffix}", folder / f"d.{suffix}")
    bim, fam, bed = ((folder / f"g.{suffix}").read_bytes() for suffix in ("bim", "fam", "bed"))
    yield Target(".fam", "t", [fam, fam.replace(b"\t", b" ")], text, lambda path: _samples(read_fam(path)))
    yield Target(".bim", "t", [bim, bim.replace(b"\t", b" ")], text, lambda path: _done(read_bim(path)))
    yield Target(".bed", "d.bed", [bed], damaged, _copies)
    if shutil.which("plink2"):
        for extra in ("--make-pgen", "--export bgen-1.2 ref-first bits=8", "--export oxford"):
            made = f"plink2 --silent --bfile g {extra} --out p"
            subprocess.run(made.split(), check=True, capture_output=True, cwd=folder)
        pvar, psam, pgen = ((folder / f"p.{suffix}").read_bytes() for suffix in ("pvar", "psam", "pgen"))
        bgen, sample = (folder / "p.bgen").read_bytes(), (folder / "p.sample").read_bytes()
        (folder / "p.bgi").unlink(missing_ok=True)
        yield Target(".pvar", "t", [pvar, bim], text, lambda path: _done(read_pvar(path)))
        yield Target(".psam", "t", [psam, psam.replace(b"#FID\t", b"#")], text, lambda path: _samples(read_psam(path)))
        yield Target(".sample", "t", [sample], text, lambda path: _samples(read_oxford_sample(path)))
        yield Target(".pgen", "p.pgen", [pgen], damaged, _copies)
        yield Target(".bgen", "p.bgen", [bgen], one_of((damaged, _bgen_block)), _copies)


def _tables_of_genotypes(folder: Path) -> Iterator[Target]:
    copies = np.random.default_rng(2).integers(0, 3, (5, SAMPLES))
    names = [f"i{i}" for i in range(SAMPLES)]
    calls = np.array(["0/0", "0|1", "1/1", "."])
    vcf = ["##fileformat=VCFv4.3", "##contig=<ID=1>", '##FORMAT=<ID=GT,Number=1,Type=String,Description="">']
    vcf += [TAB.join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *names])]
    vcf += [
        TAB.join(["1", str(j), f"v{j}", "A", "C,G", ".", ".", ".", "GT", *calls[row]]) for j, row in enumerate(copies)
    ]
    by_variant = [TAB.join(["SNPID", "CHR", "POS", *names])]
    by_variant += [TAB.join([f"v{j}", "1", str(j), *map(str, row)]) for j, row in enumerate(copies)]
    by_sample = ["IID,v0,v1,v2,v3,v4"] + [",".join([n, *map(str, row)]) for n, row in zip(names, copies.T, strict=True)]
    hapmap = [TAB.join(["rs#", "alleles", "chrom", "pos", *"abcdefg", *names])]
    letters = np.array(["AA", "R", "GG"])
    hapmap += [TAB.join([f"v{j}", "A/G", "1", "5", *["NA"] * 7, *letters[row]]) for j, row in enumerate(copies)]
    tables = ["\n".join(lines).encode() + b"\n" for lines in (by_variant, by_sample, hapmap)]
    wide = b"IID,A.m1,B.m1,A.m2,B.m2\n" + b"".join(b"i%d,.25,.75,%d,%d\n" % (i, i % 2, 1 - i % 2) for i in range(9))
    long = b"id,marker,A,B\n" + b"".join(b"i%d,m%d,0.5,0.5\n" % (i // 2, i % 2) for i in range(10))
    yield Target("founder probabilities", "t", [wide, wide.replace(b",", b"\t"), long], text, _founders)
    maps = [
        b"marker,chromosome,position\nv1,1,5\n",
        b"# a map\nmarker,chr,pos\nv1,1,0\nv2,1,2.5\n",
        b"1 v1 0 5 A G\n",
        b"v1, 5, 1\n",
    ]
    yield Target("table of genotypes", "t", tables, text, _copies)
    yield Target("map of variants", "t", maps, text, lambda path: _done(read_map(path)))
    if find_spec("cyvcf2") is not None:
        yield Target(".vcf", "t", ["\n".join(vcf).encode() + b"\n"], text, _copies)


def _matrices(folder: Path) -> Iterator[Target]:
    K = np.cov(np.random.default_rng(1).standard_normal((SAMPLES, 90)))
    ids = "".join(f"f{i} i{i}\n" for i in range(SAMPLES))
    for name in ("m.grm.id", "m.rel.id", "K.id"):
        (folder / name).write_text(ids)
    K.astype("<f4")[np.tril_indices(SAMPLES)].tofile(folder / "m.grm.bin")
    square = "\n".join(" ".join(f"{x:.10g}" for x in row) for row in K).encode() + b"\n"
    triangle = "\n".join("\t".join(f"{x:.10g}" for x in K[i, : i + 1]) for i in range(SAMPLES)).encode() + b"\n"
    names = ",".join(f"i{i}" for i in range(SAMPLES))
    rows = "\n".join(f"i{i}," + ",".join(f"{x:.10g}" for x in K[i]) for i in range(SAMPLES))
    array = io.BytesIO()
    np.save(array, K)
    with_ids = partial(_relationship, ids="K.id")
    grm = (folder / "m.grm.bin").read_bytes()
    yield Target(".grm.id", "m.grm.id", [ids.encode()], text, lambda _: _relationship("m.grm.bin"))
    (folder / "m.grm.id").write_text(ids)
    yield Target(".grm.bin", "m.grm.bin", [grm], damaged, _relationship)
    yield Target(".rel", "m.rel", [square, triangle], text, _relationship)
    yield Target(".cXX.txt", "t", [square, triangle], text, with_ids)
    yield Target(".npy", "t", [array.getvalue()], damaged, with_ids)
    yield Target("table of relationships", "t", [f"IID,{names}\n{rows}\n".encode()], text, _relationship)
    yield Target("table of G", "t", [(folder / "y.csv").read_bytes()], text, _relationship)


def _made(folder: Path) -> Iterator[Target]:
    null, scan = (folder / "null.npz").read_bytes(), (folder / "scan.parquet").read_bytes()
    half = (folder / "half.parquet").read_bytes()
    identity, blocks = _finished_blocks(folder, "half.parquet")
    yield Target("null model", "t", [null], damaged, partial(_same, digest=_null, expected=_null("null.npz")))
    expected = {_scan("scan.parquet"), _scan("half.parquet")}
    yield Target("result table", "t", [scan, half], damaged, partial(_same, digest=_scan, expected=expected))
    yield Target("finished blocks", f".out.parquet{SUFFIX}", [blocks], damaged, partial(_finished, identity=identity))


def _phenotypes(path: str) -> str | None:
    table = read_sample_table(path)
    return "an infinity" if np.isinf(table.values).any() else _some(table.samples)


def _covariates(path: str) -> str | None:
    table = read_sample_table(path, categorical=("b",), missing_codes=frozenset({"-9", "x"}), kind="covariate")
    return "an infinity" if np.isinf(table.values).any() else _some(table.samples)


def _trial(path: str) -> str | None:
    table = read_trial_table(path, ("line", "env", "yield"))
    return "an infinity" if np.isinf(table.values).any() else _some(table.samples)


def _founders(path: str) -> str | None:
    source = open_founders(path)
    copies = source.read(np.arange(len(source.variants)), np.arange(len(source.samples)))
    wrong = np.isinf(copies).any() or (copies < 0).any() or (copies > 2 + 1e-6).any()
    return "copies that cannot be" if wrong else _some(source.samples)


def _some(samples: Samples) -> str | None:
    return _samples(samples) if len(samples) else "no sample"


def _samples(samples: Samples) -> str | None:
    fids = samples.fids or ("",) * len(samples)
    keys = list(zip(fids, samples.iids, strict=True))
    return "a sample twice" if len(set(keys)) < len(keys) else None


def _done(found: object) -> None:
    """Reading is all that is asked for."""


def _trait_design(path: str) -> str | None:
    return None if np.isfinite(read_trait_design(path, ("t1", "t2"))).all() else "not finite"


def _configuration(path: str) -> None:
    context = click.Context(cli.commands["scan"], parent=click.Context(cli), info_name="scan")
    load_config(context, context.command.params[0], path)


def _copies(path: str) -> str | None:
    source = open_genotype_file(path)
    n, m = len(source.samples), len(source.variants)
    copies = source.read(np.arange(min(m, 50)), np.arange(n))
    right = copies.shape[0] == n and not np.isinf(copies).any()
    return None if right and not (copies < 0).any() and not (copies > 2).any() else "copies that cannot be"


def _relationship(path: str, ids: str | None = None) -> str | None:
    file = open_relationship(path, ids)
    found = file.load(np.arange(len(file.samples)))
    arrays = [a for a in vars(found).values() if isinstance(a, np.ndarray)]
    return None if all(np.isfinite(a).all() for a in arrays) else "not finite"


def _null(path: str) -> str:
    null = read_null(path)
    models = [null.load(chromosome) for chromosome in (None, *null.chromosomes)]
    return repr([(m.summary.axes.T.tobytes(), m.contrasts.Z.tobytes(), m.contrasts.s.tobytes()) for m in models])


def _scan(path: str) -> str:
    table = open_scan(path)
    table.check()
    return repr([table.metadata.to_json(), *(batch.to_pydict() for batch in table.iter_batches())])


def _same(path: str, digest: Callable[[str], str], expected: Any = None) -> str | None:
    found = digest(path)
    return None if expected is None or found == expected or found in expected else "taken with other content"


def _finished_blocks(folder: Path, name: str) -> tuple[dict[str, Any], bytes]:
    """The blocks of a scan, and what identifies it."""
    table, identity = open_scan(name), {"null": "a", "span": {"of": VARIANTS}}
    work = folder / f".out.parquet{SUFFIX}"
    with contextlib.suppress(KeyboardInterrupt), finished_blocks("out.parquet", identity, False) as kept:
        for batch in table.iter_batches(batch_size=7):
            kept.add(BlockResult(batch, {"tested": len(batch)}, {}))
        raise KeyboardInterrupt
    return identity, work.read_bytes()


def _finished(path: str, identity: dict[str, Any]) -> None:
    with finished_blocks("out.parquet", identity, True) as kept:
        for block in kept.read():
            _done(block)


def _bgen_block(data: bytes, rng: Random) -> bytes:
    """Change the genotypes of the first variant within their compression."""
    start = data.index(b"\x78\x9c")
    size = int.from_bytes(data[start - 8 : start - 4], "little") - 4
    content = damaged(zlib.decompress(data[start : start + size]), rng)
    packed = zlib.compress(content)
    lengths = struct.pack("<II", len(packed) + 4, len(content))
    return data[: start - 8] + lengths + packed + data[start + size :]
