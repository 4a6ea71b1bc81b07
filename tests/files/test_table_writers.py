"""Compressed outputs."""

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pytest

from kron2sum_cli.files.table_writers import compressed_output

CONTENT = [b"a\tb\n", b"1\t2\n" * 100_000]


def unpacked(path: Path) -> bytes:
    codec = {".gz": "gzip", ".zst": "zstd"}[path.suffix]
    with pa.OSFile(str(path)) as file, pa.CompressedInputStream(file, codec) as content:
        return content.read()


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".GZ"])
def test_content_is_compressed_as_the_name_says(tmp_path, suffix):
    files = [tmp_path / f"{k}.tsv{suffix}" for k in (1, 2)]
    for file in files:
        with compressed_output(str(file)) as out:
            for part in CONTENT:
                out.write(part)
    assert files[0].stat().st_size < 5000
    assert files[0].read_bytes() == files[1].read_bytes()
    named = files[0].rename(tmp_path / f"x{suffix.lower()}")
    assert unpacked(named) == b"".join(CONTENT)
    if suffix == ".gz":
        assert gzip.decompress(named.read_bytes()) == b"".join(CONTENT)


def parts_that_fail():
    yield os.urandom(30_000)
    raise ValueError("no more to be read")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_failed_does_not_look_complete(tmp_path, suffix):
    """Neither as a file nor in a pipe."""
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for out in (tmp_path / f"file{suffix}", path):
        with pytest.raises(ValueError, match="read"), compressed_output(str(out)) as file:
            file.writelines(parts_that_fail())
    copy = tmp_path / f"copy{suffix}"
    copy.write_bytes(os.read(reader, 1 << 16))
    os.close(reader)
    if copy.stat().st_size:
        with pytest.raises((OSError, EOFError)):
            gzip.decompress(copy.read_bytes()) if suffix == ".gz" else unpacked(copy)
    assert sorted(os.listdir(tmp_path)) == [f"copy{suffix}", f"pipe{suffix}"]
