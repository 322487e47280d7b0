"""Stacks as the rows of a flame graph: the ``flamebearer`` that the viewer draws.

Source of the format: Pyroscope's ``/pyroscope/render`` answer (FlamebearerProfileV1, wire.md). One row per depth, the
synthetic root ``total`` first; four whole numbers a node::

    x offset, counted from the end of the node before it in its row; total; self; index into names

    {"names": ["total", "main", "work"], "levels": [[0, 10, 0, 0], [0, 10, 3, 1], [3, 7, 7, 2]]}

A node's children lie within its own extent, to the right of its self weight, which is what makes the offsets of one
row enough to find every parent. Offsets and weights share the unit of the profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gprof_lite.model.frame import Frame, Stack

ROOT: Final = "total"
# What pruning leaves of small nodes, under Pyroscope's name for it. No frame of a program: the viewer greys it.
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Flamebearer:
    """Rows of a flame graph; see the module for the shape.

    Attributes:
        names: distinct frames; index 0 is the root.
        levels: one flat row of numbers per depth.
        total: weight of the root.
        n_pruned: nodes that were too small for the limit and are drawn as ``other``; their weight is kept.
    """

    names: list[str]
    levels: list[list[int]]
    total: int
    n_pruned: int


@dataclass(slots=True)
class _Node:
    """One node of the prefix tree. ``total`` includes the children's."""

    name: Frame
    total: int = 0
    children: dict[Frame, _Node] = field(default_factory=dict)


def build_flamebearer(stacks: Mapping[Stack, int], *, max_nodes: int) -> Flamebearer:
    """Merge stacks into rows; at most about ``max_nodes`` nodes, the smallest making place first.

    Cost: memory is about 250 bytes a node of the unpruned tree. No recursion: stacks may be thousands of frames deep.
    """
    root = _prefix_tree(stacks)
    smallest = _smallest_total_kept(root, max_nodes)
    n_pruned = _prune(root, smallest) if smallest else 0
    names, levels = _rows(root)
    return Flamebearer(names, levels, root.total, n_pruned)


def _prefix_tree(stacks: Mapping[Stack, int]) -> _Node:
    root = _Node(ROOT)
    for stack, weight in stacks.items():
        node = root
        node.total += weight
        for frame in stack:
            child = node.children.get(frame)
            if child is None:
                child = node.children[frame] = _Node(frame)
            child.total += weight
            node = child
    return root


def _walk(root: _Node) -> Iterator[_Node]:
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(node.children.values())


def _smallest_total_kept(root: _Node, max_nodes: int) -> int:
    """The weight below which nodes go; 0 when all may stay."""
    totals = sorted((node.total for node in _walk(root)), reverse=True)
    # Nodes as light as the first one without a place go with it: the limit is kept whatever the ties.
    return totals[max_nodes] + 1 if len(totals) > max_nodes else 0


def _prune(root: _Node, smallest: int) -> int:
    """Replace each node's too small children by one ``other``; return how many nodes went, descendants included."""
    n_pruned = 0
    for node in _walk(root):  # a parent is met before its children, and those put in here have none
        small = [child for child in node.children.values() if child.total < smallest and child.name != OTHER]
        for child in small:
            n_pruned += sum(1 for _ in _walk(child))
            del node.children[child.name]
        if small:
            other = node.children.setdefault(OTHER, _Node(OTHER))
            other.total += sum(child.total for child in small)
    return n_pruned


def _rows(root: _Node) -> tuple[list[Frame], list[list[int]]]:
    names = [ROOT]
    index_of: dict[Frame, int] = {}  # without the root: a program's frame may be called "total" as well
    levels: list[list[int]] = []
    row = [(0, root)]
    while row:
        numbers: list[int] = []
        below: list[tuple[int, _Node]] = []
        end = 0
        for x, node in row:
            own = node.total - sum(child.total for child in node.children.values())
            index = 0
            if node is not root:
                index = index_of.setdefault(node.name, len(names))
                if index == len(names):
                    names.append(node.name)
            numbers += (x - end, node.total, own, index)
            end = x + node.total
            x += own
            for _, child in sorted(node.children.items()):
                below.append((x, child))
                x += child.total
        levels.append(numbers)
        row = below
    return names, levels
