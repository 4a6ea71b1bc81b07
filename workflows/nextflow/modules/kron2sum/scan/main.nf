process KRON2SUM_SCAN {
    tag "${meta.id} ${shard}/${shards}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"

    input:
    tuple val(meta), path(null_model)
    tuple val(meta2), path(genotypes), path(genotype_companions)
    val shard
    val shards

    output:
    tuple val(meta), path("*.parquet"), emit: table
    tuple val(meta), path("*.log"), emit: log
    tuple val("${task.process}"), val('kron2sum'), eval("kron2sum --version | sed 's/^kron2sum //'"), topic: versions, emit: versions_kron2sum

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def prefix = task.ext.prefix ?: "${meta.id}.${shard}-of-${shards}"
    def memory = task.memory ? "--memory ${task.memory.toMega()}" : ''
    """
    export OMP_NUM_THREADS=${task.cpus}
    kron2sum scan \\
        --null ${null_model} \\
        --geno ${genotypes} \\
        --shard ${shard}/${shards} \\
        --resume \\
        --threads ${task.cpus} \\
        ${memory} \\
        ${args} \\
        --log ${prefix}.scan.log \\
        --out ${prefix}.parquet
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}.${shard}-of-${shards}"
    """
    touch ${prefix}.parquet
    touch ${prefix}.scan.log
    """
}
