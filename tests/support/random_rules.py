"""Random sequences, each as a rule of the language and as a pattern of the naive matcher, and random events."""

from __future__ import annotations

import random
from typing import Any

from astrocyte.agents.rules.model import Group, Rule, Step
from tests.support import naive

STREAM = "s"
TYPES = "ABCD"


def random_events(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Events of four types with small values; times do not decrease and often tie."""
    t, events = 0, []
    for _ in range(count):
        t += rng.choice([0, 1, 1, 2, 5])
        events.append({"t": t, "type": rng.choice(TYPES), "value": rng.randrange(4)})
    return events


class RandomRule:
    """``rule`` and ``parts`` are equivalent; ``skip`` and ``step`` are the rule's skip strategy."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names: list[str] = []
        self.ambiguous = False
        """Whether the same events fit the pattern in several ways (a loop of loops): matches repeat."""
        self.within = rng.choice([None, 4, 8, 15])
        steps, parts = self.members(rng.randint(1, 4), depth=0)
        if self.within is not None and not parts[-1].optional and rng.random() < 0.2:
            step, part = self.negated(last=True)
            steps.append(step)
            parts.append(part)
        self.parts = tuple(parts)
        self.skip, self.step = rng.choice(["none"] * 4 + ["past_last", "to_next", "to_first", "to_last"]), ""
        skip: Any = self.skip
        if self.skip.startswith("to_") and self.skip != "to_next":
            self.step = rng.choice(self.names)
            skip = {self.skip: self.step}
        self.eager = rng.random() < 0.3
        self.rule = Rule(
            name="random",
            within=f"{self.within}us" if self.within else None,
            seq=steps,
            skip=skip,
            emit_mode="eager" if self.eager else "final",
        )

    def members(self, count: int, depth: int) -> tuple[list[Step | Group], list[naive.Part]]:
        steps: list[Step | Group] = []
        parts: list[naive.Part] = []
        for index in range(count):
            if index and not parts[-1].optional and not parts[-1].negated and self.rng.random() < 0.15:
                step, part = self.negated(last=False)
                steps.append(step)
                parts.append(part)
            group = depth == 0 and count > 1 and self.rng.random() < 0.2
            made = self.group(index) if group else self.step_part(index, mandatory=depth > 0)
            steps.append(made[0])
            parts.append(made[1])
        return steps, parts

    def condition(self, name: str) -> tuple[str, naive.Condition]:
        rng, wanted = self.rng, self.rng.choice(TYPES)
        kind = rng.random()
        if kind < 0.55 or not self.names:
            return f"type == '{wanted}'", lambda event, taken: event["type"] == wanted
        if kind < 0.7:
            least = rng.randrange(1, 3)
            return (
                f"type == '{wanted}' or value >= {least + 1}",
                lambda event, taken: event["type"] == wanted or event["value"] >= least + 1,
            )
        other = rng.choice([*self.names, name])
        if kind < 0.85:
            return (
                f"type == '{wanted}' and value >= last({other}.value)",
                lambda event, taken: (
                    event["type"] == wanted and bool(taken.get(other)) and event["value"] >= taken[other][-1]["value"]
                ),
            )
        most = rng.randrange(2, 6)
        return (
            f"type != '{wanted}' and sum({other}.value) + value < {most}",
            lambda event, taken: (
                event["type"] != wanted and sum(e["value"] for e in taken.get(other, ())) + event["value"] < most
            ),
        )

    def name(self) -> str:
        return f"s{len(self.names)}"

    def negated(self, *, last: bool) -> tuple[Step, naive.Part]:
        text, condition = self.condition(self.rng.choice(self.names))
        strict = self.rng.random() < 0.3
        contiguity = {"contiguity": "next"} if strict else {}
        step = Step(stream=STREAM, where=text, negated=True, **contiguity)
        return step, naive.Part(where=condition, negated=True, contiguity="next" if strict else "followed_by")

    def quantifier(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        rng = self.rng
        options: dict[str, Any] = {}
        said: dict[str, Any] = {"contiguity": "followed_by"}
        if index:
            options["contiguity"] = said["contiguity"] = rng.choice(["next", "followed_by", "followed_by_any"])
        if rng.random() < 0.35:
            least = rng.randint(1, 2)
            most = rng.choice([None, least, least + 1])
            options |= {"min": least, "max": most}
            said |= {"least": least, "most": most}
            inner = rng.choice(["followed_by", "next", "followed_by_any"]) if most != 1 else "followed_by"
            options |= {"consecutive": inner == "next", "combinations": inner == "followed_by_any"}
            said["inner"] = inner
        if index and rng.random() < 0.2:
            options["within_prev"] = "3us"
            said["within_prev"] = 3
            if self.within is not None and self.within < 3:
                del options["within_prev"], said["within_prev"]
        return options, said

    def step_part(self, index: int, *, mandatory: bool) -> tuple[Step, naive.Part]:
        rng, name = self.rng, self.name()
        options, said = self.quantifier(index)
        text, condition = self.condition(name)
        self.names.append(name)
        loops = said.get("most", 1) != 1
        if not mandatory and index and rng.random() < 0.25:
            options["optional"] = said["optional"] = True
        if loops and said["inner"] != "followed_by_any" and said["most"] != said["least"] and rng.random() < 0.2:
            options["greedy"] = said["greedy"] = True
        elif loops and said["most"] is None and rng.random() < 0.25:
            wanted = rng.choice(TYPES)
            options["until"] = f"type == '{wanted}' and value > 1"
            said["until"] = lambda event, taken: event["type"] == wanted and event["value"] > 1
        if loops and rng.random() < 0.2:
            options["gap"], said["gap"] = "3us", 3
        return Step(name=name, stream=STREAM, where=text, **options), naive.Part(name=name, where=condition, **said)

    def group(self, index: int) -> tuple[Group, naive.Part]:
        options, said = self.quantifier(index)
        steps, parts = self.members(self.rng.randint(1, 2), depth=1)
        if said.get("most", 1) != 1 and any(part.most != 1 for part in parts):
            self.ambiguous = True
        if index and self.rng.random() < 0.25:
            options["optional"] = said["optional"] = True
        return Group(seq=steps, **options), naive.Part(members=tuple(parts), **said)


class RandomCombinations:
    """A rule of which every combination of events matches, as `RandomRule`; its naive pattern is ``parts``."""

    def __init__(self, rng: random.Random) -> None:
        self.within = rng.choice([8, 15, 30])
        self.ambiguous = False
        steps: list[Step] = []
        parts: list[naive.Part] = []
        for index in range(rng.randint(1, 3)):
            times = rng.choice([1, 1, 1, 2, 3]) if index else rng.choice([1, 2])
            text, condition = self.condition(rng)
            options: dict[str, Any] = {"contiguity": "followed_by_any"} if index else {}
            if times > 1:
                options |= {"times": times, "combinations": True}
            steps.append(Step(name=f"s{index}", stream=STREAM, where=text, **options))
            said = {"contiguity": "followed_by_any", "inner": "followed_by_any", "least": times, "most": times}
            parts.append(naive.Part(name=f"s{index}", where=condition, **said))
        if len(steps) == 1 and not steps[0].loops:
            steps.append(Step(name="s1", stream=STREAM, contiguity="followed_by_any"))
            parts.append(naive.Part(name="s1", contiguity="followed_by_any"))
        self.parts = tuple(parts)
        self.skip = rng.choice(["none"] * 3 + ["past_last", "to_next"] + ["to_first", "to_last"] * (len(steps) > 1))
        self.step = rng.choice(steps[1:]).name if self.skip in ("to_first", "to_last") else ""
        self.eager = rng.random() < 0.3
        self.rule = Rule(
            name="combinations",
            within={"time": f"{self.within - 1}us", "closed": True} if rng.random() < 0.3 else f"{self.within}us",
            seq=steps,
            skip={self.skip: self.step, "on_missing": "error"} if self.step else self.skip,
            emit_mode="eager" if self.eager else "final",
        )

    @staticmethod
    def condition(rng: random.Random) -> tuple[str, naive.Condition]:
        wanted, least = rng.choice(TYPES), rng.randrange(1, 4)
        kind = rng.random()
        if kind < 0.5:
            return f"type == '{wanted}'", lambda event, taken: event["type"] == wanted
        if kind < 0.75:
            return (
                f"type == '{wanted}' or value >= {least}",
                lambda event, taken: event["type"] == wanted or event["value"] >= least,
            )
        return (
            f"type != '{wanted}' and value < {least}",
            lambda event, taken: event["type"] != wanted and event["value"] < least,
        )
