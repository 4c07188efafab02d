"""Seeded simulation: the pipeline in one process, on simulated time, threads, network and disk.

``python -m tests.support.simulation --seed 7`` runs the schedule of one seed. Everything that may differ between two
runs is drawn from the seed: which thread runs next, how long a message travels, when a disk answers, what fails and
when. The parts of the product run unchanged; `patches` replaces clocks, threads and random numbers of the process,
`loop` and `network` stand in for selectors and sockets, and `world` decides what happens next.
"""
