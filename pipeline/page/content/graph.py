"""The pipeline as a graph: topics, groups of rules, roles and stores, in columns from the input to the stores."""

from __future__ import annotations

from typing import Any

from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.registry import SINKS
from astrocyte.agents.sinks.sql.url import shown_address
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import Plan, make_plan
from astrocyte.pipeline.topology.topics import output_topics
from astrocyte.schemas.topics import DEAD_LETTERS, LATE, METRICS_PREFIX

__all__ = ["graph_of"]

Node = dict[str, Any]
Edge = tuple[str, str]


def graph_of(ruleset: RuleSet, settings: Settings | None) -> dict[str, Any]:
    """Nodes with their column and kind, and edges, of a rule set; with ``settings`` also their sinks.

    None without rules, windows and statistics. Raises InvalidRule.
    """
    plan = make_plan(ruleset)
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []

    def node(name: str, kind: str, column: int, **more: Any) -> str:
        nodes.setdefault(name, {"id": name, "kind": kind, "column": column, **more})
        return name

    for topic in plan.inputs:
        node(topic, "topic", 0)
    for copy in plan.repartitions:
        role = node("role:repartition", "role", 1, label="repartition")
        label = f"{copy.stream} by {copy.field or 'nothing'}"
        edges += [(node(copy.source, "topic", 0), role), (role, node(copy.topic, "topic", 2, label=label))]
    for link in plan.links:  # before the groups that read them, which stand in the column before
        forms = {"junction": link.junction} if link.junction in plan.forming else {}
        node(link.topic, "topic", 4, label=f"{link.junction} by {link.field or 'nothing'}", **forms)
    for number, group in enumerate(plan.groups):
        made = (*group.ruleset.rules, *group.ruleset.windows, *group.ruleset.insight)
        by = group.title.removeprefix("by ") if group.depth else group.field or "all keys"
        about = {"label": group.role, "by": by, "rules": [each.name for each in made]}
        place = node(f"domains:{number}", "domains", 3, role=group.role, **about)
        edges += [(node(topic, "topic", 0), place) for topic in group.topics.values()]
        outputs = _outputs(plan, number)
        edges += [(place, node(topic, "topic", 4)) for topic in outputs if not topic.startswith(METRICS_PREFIX)]
        results = [topic for topic in outputs if topic.startswith(METRICS_PREFIX)]
        edges += [(place, link.topic) for link in group.links]
        if results:
            # Each would be a box of its own, with the same lines to and from it.
            label = f"{METRICS_PREFIX}* of {group.role} by {group.field or 'all keys'}"
            edges.append((place, node(f"results:{number}", "topics", 4, label=label, topics=results)))
    if settings is not None and nodes:
        _add_sinks(node, edges, nodes, settings)
    return {"nodes": list(nodes.values()), "edges": [list(edge) for edge in dict.fromkeys(edges)]}


def _outputs(plan: Plan, number: int) -> list[str]:
    """Topics that one group writes."""
    group = plan.groups[number]
    alone = Plan((group,), ())
    topics = output_topics(alone)
    if not group.ruleset.rules:
        return [topic for topic in topics if topic.startswith(METRICS_PREFIX) or topic in (LATE, DEAD_LETTERS)]
    return list(topics)


def _add_sinks(node: Any, edges: list[Edge], nodes: dict[str, Node], settings: Settings) -> None:
    outputs = [name for name, each in nodes.items() if each["column"] == 4 and name != LATE]
    stores = {
        "sql": shown_address(settings.sql_url.get_secret_value()),
        "influx": settings.influx_url or str(settings.influx_dir),
    }
    for role in settings.roles:
        if role in SINKS:
            place = node(f"role:{role}", "role", 5, label=role, role=role)
            edges += [(topic, place) for topic in outputs]
            edges.append((place, node(f"store:{role}", "store", 6, label=stores.get(role, role))))
        elif role == "control":
            place = node("role:control", "role", 5, label=role, role=role)
            edges += [(topic, place) for topic in outputs if topic.startswith("results:")]
