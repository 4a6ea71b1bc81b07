#!/usr/bin/env bash
# Build a wheel into dist/, install it into an empty environment, and run every command of it outside the repository.
#
#     packaging/try_wheel.sh [PYTHON]       make wheel PYTHON=python3.13
set -euo pipefail
python=${1:-python3}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
unset PYTHONPATH

rm -rf "$repository"/dist/kron2sum_cli-*.whl
"$python" -m venv "$empty/environment"
pip() { "$empty/environment/bin/python" -m pip --disable-pip-version-check "$@" --quiet; }
pip wheel --no-deps --wheel-dir "$repository/dist" "$repository"
wheel=$(echo "$repository"/dist/kron2sum_cli-*.whl)
pip install "$wheel"

cd "$empty"
cp "$repository"/example_data/{genotypes.*,phenotypes.csv,covariates.csv} .
kron2sum() { "$empty/environment/bin/kron2sum" "$@"; }
kron2sum --version
kron2sum fit --pheno phenotypes.csv --covar covariates.csv --grm genotypes.bed --quiet
kron2sum scan --out scan.parquet --quiet
kron2sum export scan.parquet --top 3 --columns CHR,POS,SNPID,MLOG10P --quiet

# Without matplotlib a plot says what to install; with the extra it is drawn, and so is the report.
if kron2sum export scan.parquet --plot manhattan --out manhattan.png 2>message; then
    echo "a plot was drawn without matplotlib" >&2
    exit 1
fi
cat message
pip install "$wheel[plot]"
kron2sum export scan.parquet --plot manhattan --out manhattan.png --quiet
kron2sum export scan.parquet --report report.html --null null.npz --quiet
ls -s manhattan.png report.html
"$empty/environment/bin/python" --version
