#!/usr/bin/env nextflow

// A scan in shards: fit -> scan (a task a shard) -> export, which joins the shards.

include { KRON2SUM_FIT    } from './modules/kron2sum/fit/main'
include { KRON2SUM_SCAN   } from './modules/kron2sum/scan/main'
include { KRON2SUM_EXPORT } from './modules/kron2sum/export/main'

// A data set: its file, and those that belong to it and lie beside it.
def dataset(meta, path) {
    def first = file(path, checkIfExists: true)
    def suffixes = [bed: ['bim', 'fam'], pgen: ['pvar', 'psam']]
    def companions = (suffixes[first.extension] ?: []).collect { suffix ->
        file("${first.parent}/${first.baseName}.${suffix}", checkIfExists: true)
    }
    return [meta, first, companions]
}

workflow {
    def meta = [id: params.id]
    def pheno = file(params.pheno, checkIfExists: true)
    def covar = params.covar ? file(params.covar, checkIfExists: true) : []
    def shards = params.shards as int

    KRON2SUM_FIT([meta, pheno, covar], dataset(meta, params.grm))
    KRON2SUM_SCAN(KRON2SUM_FIT.out.null_model, dataset(meta, params.geno), channel.of(1..shards), shards)
    KRON2SUM_EXPORT(KRON2SUM_SCAN.out.table.groupTuple(size: shards), 'parquet')
}
