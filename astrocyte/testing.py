"""Tools to test your own rules, validators, sinks, scenarios and controllers, without a broker, clock or delays.

::

    tester = RuleTester(load_rules("rules.yaml"))
    tester.send("temperature", at="1s", key="ward 3", value=38.2)
    tester.send("temperature", at="4s", key="ward 3", value=39.5)
    tester.advance("10s")
    tester.expect({"rule": "fever", "key": "ward 3"})

Each ``check_*`` checks a contract, and raises AssertionError or returns a list of violations. `BrokerProcess` is the
embedded broker in a process of its own, for tests that need one: ``with BrokerProcess(folder) as broker`` and
``broker.address``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astrocyte._lazy import lazy

if TYPE_CHECKING:
    from astrocyte.agents.sinks.testing import SinkUnderTest, check_sink
    from astrocyte.agents.testing import RuleTester, check_controller, check_validator
    from astrocyte.pipeline.broker import BrokerProcess
    from astrocyte.simulator.testing import check_scenario

_HOME = {
    "BrokerProcess": "pipeline.broker",
    "RuleTester": "agents.testing",
    "SinkUnderTest": "agents.sinks.testing",
    "check_controller": "agents.testing",
    "check_scenario": "simulator.testing",
    "check_sink": "agents.sinks.testing",
    "check_validator": "agents.testing",
}

__all__ = [
    "BrokerProcess",
    "RuleTester",
    "SinkUnderTest",
    "check_controller",
    "check_scenario",
    "check_sink",
    "check_validator",
]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOME, name, globals())


def __dir__() -> list[str]:
    return sorted(__all__)
