"""A plugin: a validator that blocks the event loop for ever, once: at an event whose key is ``block``.

The file that BLOCKED_ONCE names remembers that it has done so.
"""

import os
import time
from pathlib import Path

from astrocyte import register_validator


@register_validator("blocking")
def blocking(event):
    """Accept every event, but block at the first one that says so."""
    once = Path(os.environ["BLOCKED_ONCE"])
    if event["key"] == "block" and not once.exists():
        once.touch()
        while True:
            time.sleep(3600)
