process KRON2SUM_EXPORT {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"

    input:
    tuple val(meta), path(tables)
    val format

    output:
    tuple val(meta), path("*.{parquet,tsv,csv,json}"), emit: table
    tuple val(meta), path("*.log"), emit: log
    tuple val("${task.process}"), val('kron2sum'), eval("kron2sum --version | sed 's/^kron2sum //'"), topic: versions, emit: versions_kron2sum

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    export OMP_NUM_THREADS=${task.cpus}
    kron2sum export \\
        ${tables} \\
        --to ${format} \\
        ${args} \\
        --log ${prefix}.export.log \\
        --out ${prefix}.${format}
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.${format}
    touch ${prefix}.export.log
    """
}
