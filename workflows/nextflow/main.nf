#!/usr/bin/env nextflow

// A scan in shards: fit -> scan (a task a shard) -> export, which joins the shards.

include { KRON2SUM_FIT    } from './modules/kron2sum/fit/main'
include { KRON2SUM_SCAN   } from './modules/kron2sum/scan/main'
include { KRON2SUM_EXPORT } from './modules/kron2sum/export/main'

// A data set: its file, and those that belong to it and lie beside it.
def dataset(meta, path) {
    def first = file(path, checkIfExists: true)
    def beside = [
        '.bed'    : ['.bim', '.fam'],
        '.pgen'   : ['.pvar', '.pvar.zst', '.psam'],
        '.bgen'   : ['.sample', '.bgen.bgi'],
        '.grm.bin': ['.grm.id'],
        '.grm.gz' : ['.grm.id'],
        '.grm.sp' : ['.grm.id'],
        '.rel.bin': ['.rel.id'],
        '.rel'    : ['.rel.id'],
    ]
    def suffix = beside.keySet().find { ending -> first.name.endsWith(ending) } ?: ''
    def stem = first.name.substring(0, first.name.length() - suffix.length())
    def companions = (beside[suffix] ?: []).collect { ending -> first.parent.resolve(stem + ending) }
    return [meta, first, companions.findAll { companion -> companion.exists() }]
}

workflow {
    def meta = [id: params.id]
    def pheno = file(params.pheno, checkIfExists: true)
    def covar = params.covar ? file(params.covar, checkIfExists: true) : []
    def shards = params.shards as int

    def grm = params.grm == 'none' ? [meta, [], []] : dataset(meta, params.grm)

    KRON2SUM_FIT([meta, pheno, covar], grm)
    KRON2SUM_SCAN(KRON2SUM_FIT.out.null_model, dataset(meta, params.geno), channel.of(1..shards), shards)
    KRON2SUM_EXPORT(KRON2SUM_SCAN.out.table.groupTuple(size: shards), 'parquet')
}
