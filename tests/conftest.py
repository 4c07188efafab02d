"""What holds for all tests: no deadline for single examples, because machines are shared and noisy."""

from hypothesis import settings

settings.register_profile("astrocyte", deadline=None)
settings.load_profile("astrocyte")
