"""A second implementation of sequences: enumerate all assignments of events to a pattern, and check each of them.

It is slow (exponential), small, and knows nothing of automata. A pattern is first unrolled into *plans*: all lists of
places that its quantifiers allow, no longer than the input. A match is a plan with one event for each place, in order,
such that

- the event fits its place, and lies within the place's time of the event before;
- between it and the event before lies what the place's contiguity allows: nothing (``next``), nothing that fits
  (``followed_by``), anything (``followed_by_any``); and never an event that is forbidden there;
- the last event lies within the window of the first.

The text it follows is the docs page "Rules".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Event = Mapping[str, Any]
Taken = Mapping[str, Sequence[Event]]
Condition = Callable[[Event, Taken], bool]
Match = tuple[tuple[str, tuple[int, ...]], ...]
FOREVER = 2**62


def never(event: Event, taken: Taken) -> bool:
    return False


def always(event: Event, taken: Taken) -> bool:
    return True


@dataclass(frozen=True)
class Part:
    """A step (``name``, ``where``) or a group (``members``), with its quantifier. ``most`` None: no limit."""

    name: str = ""
    where: Condition = always
    members: tuple[Part, ...] = ()
    contiguity: str = "followed_by"
    negated: bool = False
    least: int = 1
    most: int | None = 1
    optional: bool = False
    inner: str = "followed_by"
    greedy: bool = False
    until: Condition = never
    within_prev: int = FOREVER
    gap: int = FOREVER


@dataclass(frozen=True)
class Place:
    """One event of a plan. An event at it, or passed over before it, must be neither ``forbidden`` nor ``blocked``."""

    name: str
    where: Condition
    contiguity: str
    wait: int = FOREVER
    ends: tuple[Condition, ...] = ()
    """Conditions that end the loop: not true of the event here."""
    ends_passing: tuple[Condition, ...] = ()
    """The same for events that are passed over on the way here."""
    forbidden: tuple[Condition, ...] = ()
    blocked: tuple[Condition, ...] = ()
    not_next: tuple[Condition, ...] = ()
    """What the very next event must not be."""


@dataclass(frozen=True)
class Plan:
    places: tuple[Place, ...] = ()
    open: tuple[Part, ...] = field(default=())
    """Negated parts since the last place that took an event."""
    blocked: tuple[Condition, ...] = ()
    """What greedy loops directly before would have taken."""


def plans(members: Sequence[Part], longest: int, lead: str = "next") -> Iterator[Plan]:
    """Every unrolling of the members with at most ``longest`` places; ``lead`` is the contiguity of the first."""
    yield from _sequence(members, 0, Plan(), longest, lead, FOREVER, ())


def _sequence(
    members: Sequence[Part],
    index: int,
    plan: Plan,
    longest: int,
    lead: str,
    wait: int,
    ends: tuple[Condition, ...],
    beyond: Sequence[Part] = (),
) -> Iterator[Plan]:
    """The plan with members[index:] added; ``beyond`` is what follows the group that holds them."""
    if index == len(members):
        yield plan
        return
    part = members[index]
    if part.negated:
        done = replace(plan, open=(*plan.open, part))
        yield from _sequence(members, index + 1, done, longest, lead, wait, ends, beyond)
        return
    contiguity = lead if index == 0 else part.contiguity
    first_wait = min(wait if index == 0 else FOREVER, part.within_prev)
    following = [*members[index + 1 :], *beyond][:1]
    after = [each for each in following if each.negated]
    follows = tuple(each.where for each in after if each.contiguity != "next")
    follows_next = tuple(each.where for each in after if each.contiguity == "next")

    def rest(done: Plan) -> Iterator[Plan]:
        yield from _sequence(members, index + 1, done, longest, lead, wait, ends, beyond)

    blocks = (*plan.blocked, part.where) if part.greedy and part.most != part.least else plan.blocked
    if part.optional:
        yield from rest(replace(plan, blocked=blocks))

    def occur(done: Plan, count: int) -> Iterator[Plan]:
        if count >= part.least:
            yield from rest(replace(done, blocked=(part.where,)) if part.greedy and part.most != part.least else done)
        if (part.most is None or count < part.most) and len(done.places) < longest:
            first = count == 0
            for further in _once(
                part, done, longest, contiguity if first else part.inner, first_wait if first else part.gap, ends,
                () if first else follows, follows_next if count >= part.least else (), first, following,
            ):  # fmt: skip
                yield from occur(further, count + 1)

    yield from occur(plan, 0)


def _once(
    part: Part, plan: Plan, longest: int, contiguity: str, wait: int, ends: tuple[Condition, ...],
    follows: tuple[Condition, ...], follows_next: tuple[Condition, ...], first: bool, following: Sequence[Part],
) -> Iterator[Plan]:  # fmt: skip
    """The plan with one more occurrence of the part; ``follows`` is what must not follow the loop."""
    if part.members:
        for further in _sequence(part.members, 0, plan, longest, contiguity, wait, (*ends, part.until), following):
            place = further.places[len(plan.places)]
            forbidden, not_next = (*place.forbidden, *follows), (*place.not_next, *follows_next)
            place = replace(place, forbidden=forbidden, not_next=not_next)
            yield replace(further, places=(*plan.places, place, *further.places[len(plan.places) + 1 :]))
        return
    forbidden = (*(each.where for each in plan.open if each.contiguity != "next"), *follows)
    place = Place(
        part.name,
        part.where,
        contiguity,
        wait,
        ends=(*ends, part.until),
        ends_passing=ends if first else (*ends, part.until),
        forbidden=forbidden,
        blocked=plan.blocked,
    )
    not_next = tuple(each.where for each in plan.open if each.contiguity == "next")
    place = replace(place, not_next=(*not_next, *follows_next))
    if len(plan.places) < longest:
        yield Plan((*plan.places, place))


def matches(
    members: Sequence[Part], events: Sequence[Event], *, within: int = FOREVER, end_of_time: int = FOREVER
) -> set[tuple[Match, int]]:
    """All matches in ``events`` (in processing order, ``t`` not decreasing), each with the index of its completion.

    A match completes with an event (its index) or, where absence decides, with time: then the index is the number of
    events, provided that time goes on to ``end_of_time``.
    """
    found: set[tuple[Match, int]] = set()
    for plan in plans(members, len(events)):
        if not members[-1].negated:
            # Absence before optional parts says nothing about the end; that of the very next event still does.
            plan = replace(plan, open=tuple(part for part in plan.open if part.contiguity == "next"))
        if plan.places:
            _lay(plan, events, within, end_of_time, 0, [], {}, found)
    return found


def _lay(
    plan: Plan, events: Sequence[Event], within: int, end_of_time: int, place_number: int, chosen: list[int],
    taken: dict[str, list[Event]], found: set[tuple[Match, int]],
) -> None:  # fmt: skip
    if place_number == len(plan.places):
        completed = _completion(plan, events, within, end_of_time, chosen, taken)
        if completed is not None:
            labels: dict[str, list[int]] = {}
            for place, index in zip(plan.places, chosen, strict=True):
                labels.setdefault(place.name, []).append(index)
            found.add((tuple(sorted((name, tuple(each)) for name, each in labels.items())), completed))
        return
    place = plan.places[place_number]
    last_place = place_number == len(plan.places) - 1 and not plan.open
    start = chosen[-1] + 1 if chosen else 0
    for index in range(start, len(events)):
        event = events[index]
        if chosen:
            if event["t"] - events[chosen[0]]["t"] >= within:
                return
            # A place is waited for by its own time only, from the event before.
            in_time = event["t"] - events[chosen[-1]]["t"] < place.wait
        else:
            in_time = True
        forbidden = chosen and _any(place.forbidden, event, taken)
        if chosen and index == start and _any(place.not_next, event, taken):
            return
        blocked = chosen and _any(place.blocked, event, taken)
        fits = place.where(event, taken)
        taken_here = fits and in_time and not blocked and not _any(place.ends, event, taken)
        # What is forbidden does not end a match that it completes.
        if taken_here and (not forbidden or last_place):
            chosen.append(index)
            taken.setdefault(place.name, []).append(event)
            _lay(plan, events, within, end_of_time, place_number + 1, chosen, taken, found)
            taken[place.name].pop()
            chosen.pop()
        if not chosen:
            continue
        if forbidden or blocked or _any(place.ends_passing, event, taken):
            return
        if place.contiguity == "next" or (place.contiguity == "followed_by" and fits):
            return


def _any(conditions: Sequence[Condition], event: Event, taken: Taken) -> bool:
    return any(condition(event, taken) for condition in conditions)


def _completion(
    plan: Plan, events: Sequence[Event], within: int, end_of_time: int, chosen: list[int], taken: Taken
) -> int | None:
    """Index of the event with which the match is complete; None where it is not."""
    if not plan.open:
        return chosen[-1]
    first, last = events[chosen[0]]["t"], events[chosen[-1]]["t"]
    (absent,) = plan.open
    if absent.contiguity == "next":
        after = chosen[-1] + 1
        confirmed = after < len(events) and events[after]["t"] - first < within
        confirmed = confirmed and not _any((absent.where, *plan.blocked), events[after], taken)
        return after if confirmed else None
    deadline = min(first + within, last + absent.within_prev)
    for event in events[chosen[-1] + 1 :]:
        if event["t"] >= deadline:
            break
        if _any((absent.where, *plan.blocked), event, taken):
            return None
    return len(events) if end_of_time >= deadline else None


def skipped(
    found: set[tuple[Match, int]], kind: str, step: str = "", *, eager: bool = False
) -> tuple[list[Match], str]:
    """Matches that a skip strategy keeps, and whether they are unambiguous.

    It is "tied" where several matches begin and complete together and the order of the two decides which of them is
    left, and "undecided" where these end with different events, so that all that follows depends on it.

    Matches are put out by start event (eager: by completion), then each drops what began before: its last event
    and that event itself (past_last), its own start too (to_next), or its first or last event of ``step``.
    """
    if kind == "none":
        return [match for match, _ in found], "clear"

    def indices(match: Match) -> list[int]:
        return sorted(index for _, each in match for index in each)

    order = sorted(found, key=lambda each: (each[1], indices(each[0])[0]) if eager else (indices(each[0])[0], each[1]))
    left: list[Match] = []
    before = -1
    for match, _ in order:
        start = indices(match)[0]
        if start < before:
            continue
        left.append(match)
        named = dict(match).get(step, ())
        if kind == "past_last":
            before = max(before, indices(match)[-1] + 1)
        elif kind == "to_next":
            before = max(before, start + 1)
        elif named:
            before = max(before, named[0] if kind == "to_first" else named[-1])
    lasts: dict[tuple[int, int], set[int]] = {}
    for match, completed in found:
        lasts.setdefault((indices(match)[0], completed), set()).add(indices(match)[-1])
    tied = len(lasts) < len(found)
    return left, "undecided" if tied and any(len(each) > 1 for each in lasts.values()) else "tied" if tied else "clear"
