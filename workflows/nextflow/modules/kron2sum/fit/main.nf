process KRON2SUM_FIT {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"

    input:
    tuple val(meta), path(pheno), path(covar)
    tuple val(meta2), path(grm), path(grm_companions)

    output:
    tuple val(meta), path("*.npz"), emit: null_model
    tuple val(meta), path("*.log"), emit: log
    tuple val("${task.process}"), val('kron2sum'), eval("kron2sum --version | sed 's/^kron2sum //'"), topic: versions, emit: versions_kron2sum

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def prefix = task.ext.prefix ?: "${meta.id}"
    def covariates = covar ? "--covar ${covar}" : ''
    def relationship = grm ? "${grm}" : 'none'
    def memory = task.memory ? "--memory ${task.memory.toMega()}" : ''
    """
    export OMP_NUM_THREADS=${task.cpus}
    kron2sum fit \\
        --pheno ${pheno} \\
        ${covariates} \\
        --grm ${relationship} \\
        --threads ${task.cpus} \\
        ${memory} \\
        ${args} \\
        --log ${prefix}.fit.log \\
        --out ${prefix}.npz
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.npz
    touch ${prefix}.fit.log
    """
}
