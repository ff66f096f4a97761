"""What `examples/benchmark.py` measures.  A work is a training task; a contender is a library in one form of use.

    works.py        the works: networks, matrix products, images and their order, initial weights
    npvae_.py       npvae by its public `fit`, with fused or NumPy kernels
    pytorch.py      PyTorch, eager and compiled
    jax_.py         JAX, with a jitted step or a jitted epoch
    floor.py        the matrix products alone
    worker.py       the process of one contender, and its requests and answers
    pool.py         the parent process: environments, workers, turns
    parts.py        the parts: training, start-up, log-likelihood, batch size and width, kernels
    kernel_table.py each fused kernel against its NumPy twin
    summary.py      medians, ratios, agreement of losses, tables
    machine.py      processor, versions, memory
"""
