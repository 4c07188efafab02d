"""The simulator: worlds of cells and agents in JAX that emit events as frames.

Importing this package is cheap: JAX is loaded with the first scenario, and no connection is opened::

    from astrocyte.scenario import MemorySink, simulate
    sink = MemorySink()
    simulate("axons", {"domains": 64}, seed=7, ticks=1000, sink=sink)
"""
