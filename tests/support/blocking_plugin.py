"""A plugin: a validator that blocks the event loop, and a role whose agent does not return, each of them once.

Both do so at an event whose key is ``block``; the file that BLOCKED_ONCE names remembers it.
"""

import asyncio
import os
import time
from pathlib import Path

from astrocyte import register_role, register_validator


def blocks(key):
    """Whether this is the first event with the key."""
    once = Path(os.environ["BLOCKED_ONCE"])
    if key != "block" or once.exists():
        return False
    once.touch()
    return True


@register_validator("blocking")
def blocking(event):
    """Accept every event, but block at the first one that says so."""
    while blocks(event["key"]):
        time.sleep(3600)


@register_role("hanging")
def build(app, _settings):
    """Copy keys to the topic ``pages``, but wait for ever at the first event that says so."""
    app.declare("mono.moves", "pages")

    @app.agent(app.topic("mono.moves"))
    async def copy(stream):
        async for event in stream.noack().events():
            for record in event.value.records:
                if blocks((record.key or b"").decode()):
                    await asyncio.Event().wait()
                await app.publish("pages", {"offset": record.offset, "partition": event.value.partition})
            event.ack()
