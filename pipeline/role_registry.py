"""Registry of the roles that a worker can run. Every registered sink is also a role.

::

    def build(app: WorkerApp, settings: Settings) -> None:      # attaches agents to the Faust app of this process
        @app.agent(app.topic("alerts"))
        async def page(stream): ...

    register_role("pager", build)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from astrocyte.agents.sinks.registry import SINKS
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import Registry, described, did_you_mean, takes

__all__ = ["ROLES", "RoleBuilder", "check_role", "register_role", "role_names"]

RoleBuilder = Callable[[Any, Any], None]
"""Takes the app (`pipeline.roles.worker_app.WorkerApp`) and the settings (`pipeline.settings.Settings`)."""


def _convert(name: str, found: Any) -> RoleBuilder:
    if not takes(found, 2):
        raise InvalidSettings(f"role {name!r}: expected a function of the app and settings, got {described(found)}")
    return found  # type: ignore[no-any-return]


ROLES: Final[Registry[RoleBuilder]] = Registry(
    "role",
    group="astrocyte.roles",
    shipped={
        name: f"astrocyte.pipeline.roles.build:build_{name}"
        for name in ("correlate", "repartition", "insight", "control")
    },
    convert=_convert,
)
"""Roles other than sinks."""


def register_role(name: str, build: RoleBuilder | None = None) -> Any:
    """Register a role: ``build(app, settings)`` attaches agents to its Faust app. Without ``build``, a decorator.

    The role's consumer group is ``<group>-<name>``. Raises InvalidSettings.
    """

    def add(given: RoleBuilder) -> RoleBuilder:
        if name in SINKS:
            raise InvalidSettings(f"there is a sink {name!r} already, and every sink is a role; choose another name")
        ROLES.register(name, given)
        return given

    return add if build is None else add(build)


def role_names() -> tuple[str, ...]:
    """All roles, sinks included; the shipped ones first, in an order that does not change."""
    shipped = (*ROLES.shipped, *SINKS.shipped)
    return (*shipped, *sorted({*ROLES.names(), *SINKS.names()} - set(shipped)))


def check_role(name: str) -> None:
    """Raises InvalidSettings for a role that is not registered."""
    if name not in ROLES and name not in SINKS:
        names = role_names()
        raise InvalidSettings(f"there is no role {name!r}; known: {', '.join(names)}{did_you_mean(name, names)}")
