"""The workers of a pipeline now: the members of its consumer groups, with the domains that each has."""

from __future__ import annotations

from dataclasses import dataclass

from astrocyte.pipeline.kafka.client import admin_client
from astrocyte.pipeline.transport.assignor import partitions_of

__all__ = ["MemberOfRole", "members_of"]

_ROLES = ("correlate", "insight")
"""Roles whose members have domains."""


@dataclass(frozen=True, slots=True)
class MemberOfRole:
    """A worker of a role, and the numbers of the domains that it has."""

    role: str
    member: str
    host: str
    partitions: tuple[int, ...]


async def members_of(broker: str, group: str) -> list[MemberOfRole]:
    """The members of the groups of the roles that have domains, in the order of their domains."""
    found: list[MemberOfRole] = []
    async with admin_client(broker) as admin:
        for role in _ROLES:
            described = (await admin.describe_consumer_groups([f"{group}-{role}"]))[0].to_object()["groups"][0]
            found += sorted(
                (
                    MemberOfRole(role, each["member_id"], each["client_host"], partitions_of(each["member_assignment"]))
                    for each in described["members"]
                ),
                key=lambda member: (member.partitions, member.member),
            )
    return found
