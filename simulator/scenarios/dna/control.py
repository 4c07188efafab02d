"""Messages of ``control.ga`` for the dna scenario: commands of an external controller to its genetic algorithm.

``mutation_rate`` sets the probability that a key mutates. ``crossover`` fixes the mate with which an agent is bred,
until the next such message for it. ``elite`` puts an agent into its population's breeding pool: while there is one, all
mates that are not fixed are taken from it, and up to a quarter of the population is protected from being bred,
whatever its rank. ``retire`` ends that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.simulator.scenario import InvalidControl
from astrocyte.simulator.scenarios.dna.config import DnaConfig

__all__ = ["KEPT", "NOBODY", "ORDERS", "apply_ga", "no_orders"]

ORDERS = 128
"""Most agents in breeding pools, and most with a fixed mate: a further command replaces the oldest."""
KEPT = 4
"""At most one in so many agents of a population is protected, those of the highest karma that would be bred: were all,
as after a time in which all scores are high, evolution would end, and with it the scores that could end that."""
NOBODY = -1
_ACTIONS = ("mutation_rate", "crossover", "elite", "retire")
_AGENT = re.compile(r"agent-(\d{5,9})")


def no_orders() -> dict[str, NDArray[np.int32]]:
    """Tables of agent numbers, oldest first: ``kept`` [ORDERS], and ``mates`` [ORDERS, 2] of agent and mate."""
    return {"kept": np.full(ORDERS, NOBODY, np.int32), "mates": np.full((ORDERS, 2), NOBODY, np.int32)}


def apply_ga(config: DnaConfig, params: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """Params after the message. Raises InvalidControl."""
    action = message.get("action")
    if action == "mutation_rate":
        rate = message.get("mutation_rate")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate <= 1.0:
            raise InvalidControl(f"mutation_rate: expected a number from 0 to 1, got {rate!r}")
        return {**params, "mutation_rate": np.float32(rate)}
    if action not in _ACTIONS:
        raise InvalidControl(f"action: expected one of {', '.join(_ACTIONS)}, got {action!r}")
    agent = _number(config, "agent_id", message)
    if action == "crossover":
        if config.recombination == "pool":
            raise InvalidControl(
                "action 'crossover' needs the setting recombination = 'mate'; with 'pool' agents have no mates"
            )
        pair = [agent, _number(config, "partner_agent_id", message)]
        # The controller may not know an elite agent yet: then the agent has no fixed mate.
        given = message.get("partner_agent_id") is not None
        if agent // config.size != pair[1] // config.size and given:
            raise InvalidControl(
                f"agents {agent} and {pair[1]}: expected agents of one population, since populations do not mix"
            )
        others = params["mates"][params["mates"][:, 0] != agent]
        return {**params, "mates": _newest(np.concatenate([others, [pair]]) if given else others)}
    others = params["kept"][params["kept"] != agent]
    return {**params, "kept": _newest(np.append(others, agent) if action == "elite" else others)}


def _number(config: DnaConfig, name: str, message: Mapping[str, Any]) -> int:
    text = message.get(name)
    if name == "partner_agent_id" and text is None:
        return NOBODY
    last = config.size * config.populations - 1
    found = _AGENT.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) > last:
        raise InvalidControl(f"{name}: expected one of agent-00000 to agent-{last:05d}, got {text!r}")
    return int(found[1])


def _newest(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The newest rows, in a table of fixed shape: another shape would compile the step again."""
    used = rows[(rows.reshape(len(rows), -1) != NOBODY).all(axis=1)][-ORDERS:]
    table = np.full((ORDERS, *rows.shape[1:]), NOBODY, np.int32)
    table[ORDERS - len(used) :] = used
    return table
