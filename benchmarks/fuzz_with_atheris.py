"""Fuzz one reader with atheris (libFuzzer), which looks for inputs that reach new lines of it.

    pip install atheris
    python -m benchmarks.fuzz_with_atheris phenotypes [--seconds 60]

The readers and what must not happen are those of `fuzz_readers`. libFuzzer says at the end how many inputs it tried,
and ends at the first that goes wrong, which it leaves in a file ``crash-...``.
"""

import argparse
import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kron2sum_cli"]):
    from benchmarks import fuzz_targets
    from benchmarks.fuzz_readers import scratch
    from kron2sum_cli.errors import Kron2SumError


def main() -> None:
    """Fuzz a reader for some time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reader")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    here = os.getcwd()
    with scratch() as folder:
        target = next(t for t in fuzz_targets.targets(folder) if t.reader == options.reader)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(seed)
        os.chdir(folder)
        path = Path(target.name)

        def one(data: bytes) -> None:
            path.write_bytes(data)
            try:
                wrong = target.read(target.name)
            except Kron2SumError:
                return
            if wrong is not None:
                raise AssertionError(wrong)

        longest = 2 * max(map(len, target.seeds))
        flags = [
            f"-max_total_time={options.seconds}",
            f"-max_len={longest}",
            f"-artifact_prefix={here}/",
            "-timeout=20",
        ]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
