# kron2sum with all its extras. Files of the current folder are those of /data:
#
#     docker build --tag kron2sum .
#     docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD":/data kron2sum fit --pheno pheno.tsv --grm geno.bed
FROM python:3.13-slim AS build
# Packages without a wheel for this machine are compiled.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential libbz2-dev libcurl4-openssl-dev liblzma-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/kron2sum
COPY pyproject.toml README.md LICENSE /source/
COPY kron2sum_cli /source/kron2sum_cli
RUN /opt/kron2sum/bin/python -m pip install --no-cache-dir '/source[plot,pgen,vcf]'

FROM python:3.13-slim
COPY --from=build /opt/kron2sum /opt/kron2sum
# matplotlib keeps its fonts' list here, whoever runs the container.
ENV PATH=/opt/kron2sum/bin:$PATH MPLCONFIGDIR=/tmp/matplotlib
RUN kron2sum --version
WORKDIR /data
ENTRYPOINT ["kron2sum"]
CMD ["--help"]
