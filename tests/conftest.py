"""What holds for all tests: no deadline for single examples, because machines are shared and noisy; JAX on the CPU."""

import os

from hypothesis import settings

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before any test imports JAX, here and in child processes

settings.register_profile("astrocyte", deadline=None)
settings.load_profile("astrocyte")
