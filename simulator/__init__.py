"""The simulator: worlds of cells and agents in JAX that emit events as frames.

Importing it costs nothing: JAX is loaded when a scenario is, and no connection is opened here::

    from astrocyte.scenario import MemorySink, simulate
    sink = MemorySink()
    simulate("axons", {"domains": 64}, seed=7, ticks=1000, sink=sink)
"""
