"""A plugin: a validator that keeps the processor busy for as many seconds an event as SLOW_VALIDATOR_S says."""

import os
import time

from astrocyte import register_validator

BUSY_S = float(os.environ.get("SLOW_VALIDATOR_S", "0"))


@register_validator("slow")
def slow(_event):
    """Accept every event, late."""
    end_s = time.perf_counter() + BUSY_S
    while time.perf_counter() < end_s:
        pass
