"""JAX on the CPU for the simulator's tests, wherever they run; set before JAX is imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
