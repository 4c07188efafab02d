"""Passes over a forest of parents as arrays of rows, in time that is linear in the births, whatever its depth.

``first`` and ``second`` hold the row of each row's parents, -1 where there is none. All but `births_in_order` expect
rows in which parents come before their children.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from astrocyte.agents.jit import loop

__all__ = ["add_to_ancestors", "births_in_order", "latest_below", "mark_ancestors", "nearest_marked", "postorder"]


@loop
def births_in_order(first: Any, second: Any) -> Any:
    """Number of births between each row and its furthest founder, and a row that descends from itself or -1."""
    n = len(first)
    depth = np.full(n, -1, np.int32)
    entered = np.zeros(n, np.bool_)
    stack = np.empty(n, np.int64)
    for start in range(n):
        if depth[start] >= 0:
            continue
        top = 0
        stack[0] = start
        entered[start] = True
        while top >= 0:
            row = stack[top]
            deepest = -1
            waits = -1
            for parent in (first[row], second[row]):
                if parent >= 0:
                    if depth[parent] < 0:
                        waits = parent
                    else:
                        deepest = max(deepest, depth[parent])
            if waits < 0:
                depth[row] = deepest + 1
                top -= 1
            elif entered[waits]:
                return depth, waits
            else:
                top += 1
                stack[top] = waits
                entered[waits] = True
    return depth, -1


@loop
def mark_ancestors(first: Any, second: Any, marked: Any) -> None:
    """Also mark all ancestors of the rows that are marked."""
    for row in range(len(first) - 1, -1, -1):
        if marked[row]:
            if first[row] >= 0:
                marked[first[row]] = True
            if second[row] >= 0:
                marked[second[row]] = True


@loop
def add_to_ancestors(parent: Any, values: Any) -> Any:
    """Sum of the int64 values of each row and its descendants."""
    totals = values.copy()
    for row in range(len(parent) - 1, -1, -1):
        if parent[row] >= 0:
            totals[parent[row]] += totals[row]
    return totals


@loop
def postorder(parent: Any, sizes: Any) -> Any:
    """Position at which each row's subtree begins when children come before their parent, in the order of rows.

    ``sizes`` are the numbers of rows of the subtrees: a row is at the last position of its own.
    """
    n = len(parent)
    starts = np.empty(n, np.int64)
    free = np.empty(n, np.int64)  # where the subtree of the next child of a row begins
    end = 0
    for row in range(n):
        if parent[row] < 0:
            starts[row] = end
            end += sizes[row]
        else:
            starts[row] = free[parent[row]]
            free[parent[row]] += sizes[row]
        free[row] = starts[row]
    return starts


@loop
def latest_below(parent: Any, values: Any) -> Any:
    """Greatest of the int64 values of each row and its descendants."""
    latest = values.copy()
    for row in range(len(parent) - 1, -1, -1):
        if parent[row] >= 0 and latest[row] > latest[parent[row]]:
            latest[parent[row]] = latest[row]
    return latest


@loop
def nearest_marked(parent: Any, marked: Any) -> Any:
    """Row of the nearest ancestor of each row that is marked, -1 where none is."""
    found = np.full(len(parent), -1, np.int64)
    for row in range(len(parent)):
        above = parent[row]
        if above >= 0:
            found[row] = above if marked[above] else found[above]
    return found
