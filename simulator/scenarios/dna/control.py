"""Messages of ``control.ga`` for the dna scenario: what a genetic algorithm outside wants of the one inside.

``mutation_rate`` sets the chance that a key mutates. ``crossover`` gives an agent its mate whenever it is bred, until
another message gives it another. ``elite`` keeps an agent from being bred, whatever its rank; ``retire`` ends that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.simulator.scenario import InvalidControl
from astrocyte.simulator.scenarios.dna.config import DnaConfig

__all__ = ["NOBODY", "ORDERS", "apply_ga", "no_orders"]

ORDERS = 128
"""Agents that are kept, and agents with a mate of their own, at most: the oldest order gives way."""
NOBODY = -1
_ACTIONS = ("mutation_rate", "crossover", "elite", "retire")
_AGENT = re.compile(r"agent-(\d{5,9})")


def no_orders() -> dict[str, NDArray[np.int32]]:
    """Tables of numbers of agents: ``kept`` [ORDERS], and ``mates`` [ORDERS, 2] of agent and mate; oldest first."""
    return {"kept": np.full(ORDERS, NOBODY, np.int32), "mates": np.full((ORDERS, 2), NOBODY, np.int32)}


def apply_ga(config: DnaConfig, params: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """Params after the message. Raises InvalidControl."""
    action = message.get("action")
    if action == "mutation_rate":
        rate = message.get("mutation_rate")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate <= 1.0:
            raise InvalidControl(f"mutation_rate is {rate!r}; a number from 0 to 1 was wanted")
        return {**params, "mutation_rate": np.float32(rate)}
    if action not in _ACTIONS:
        raise InvalidControl(f"action is {action!r}; one of {', '.join(_ACTIONS)} was wanted")
    agent = _number(config, "agent_id", message)
    if action == "crossover":
        if config.recombination == "pool":
            raise InvalidControl("action is 'crossover'; agents have no mates where recombination is 'pool'")
        pair = [agent, _number(config, "partner_agent_id", message)]
        # The controller may know no elite agent yet: then the agent has no mate of its own.
        given = message.get("partner_agent_id") is not None
        if agent // config.size != pair[1] // config.size and given:
            raise InvalidControl(f"agents {agent} and {pair[1]} are of two populations, which do not mix")
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
        raise InvalidControl(f"{name} is {text!r}; one of agent-00000 to agent-{last:05d} was wanted")
    return int(found[1])


def _newest(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The newest rows that fit, in a table of the usual shape: another one would compile the step anew."""
    used = rows[(rows.reshape(len(rows), -1) != NOBODY).all(axis=1)][-ORDERS:]
    table = np.full((ORDERS, *rows.shape[1:]), NOBODY, np.int32)
    table[ORDERS - len(used) :] = used
    return table
