"""The command that need not start is the command."""

import subprocess
from pathlib import Path

from command_on_path import environment_with_command

SCRIPT = r"""
kron2sum export nothing.parquet; echo $?
printf 'IID,a\ns1,1\n' | KRON2SUM_FIT_GRM='no such' kron2sum fit --pheno - > /dev/full; echo $?
kron2sum fit --help | head -1; echo ${PIPESTATUS[0]}
kron2sum scan --null 'a  b' --out "$PWD/x.parquet" -- -c; exit $?
"""


def test_it_has_the_arguments_files_folder_environment_and_exit_code(
    tmp_path: Path, quick_kron2sum: dict[str, str]
) -> None:
    started, quick = (
        subprocess.run(["bash", "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True)
        for environment in (environment_with_command(tmp_path / "bin"), quick_kron2sum)
    )
    assert (quick.returncode, quick.stdout, quick.stderr) == (started.returncode, started.stdout, started.stderr)
    assert quick.returncode == 2 and quick.stdout.splitlines()[:2] == ["1", "1"]
    assert "no such" in quick.stderr
