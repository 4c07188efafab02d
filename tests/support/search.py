"""Numbers of examples of properties whose examples are slow: few in ``make test``, more in a round of ``make soak``."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

__all__ = ["examples"]


def examples(quick: int, search: int, **options: Any) -> settings:
    """Decorator of a property: ``quick`` examples, and ``search`` where the profile of ``make soak`` is loaded."""
    return settings(max_examples=search if settings.get_current_profile_name() == "soak" else quick, **options)
