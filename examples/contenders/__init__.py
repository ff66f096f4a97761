"""What `examples/benchmark.py` measures, and with what.

    works.py        six works, two of the family, their layers and matrix products, the images, their order, the weights
    npvae_.py       npvae through its public `fit`, with either kind of kernels
    pytorch.py      PyTorch, eager and compiled
    jax_.py         JAX, jitted by the step and by the epoch
    floor.py        the matrix products alone
    worker.py       the process of one contender, and what it can be asked
    pool.py         the parent's side: environments, processes, turns
    parts.py        training by turns; start-up; log-likelihood; batch size and width
    kernel_table.py each fused kernel against its NumPy twin
    summary.py      medians, ratios, agreement of losses, tables
    machine.py      processor, versions, memory
"""
