"""The tree of a merged profile, and Pyroscope's flamebearer form of it.

Source of the form: the recorded answers of Pyroscope 1.12. ``names`` holds each name once, ``total`` first;
``levels[depth]`` holds four integers per node: distance from the end of the node before it, total, self, name index.
Children stand in alphabetical order, to the right of their parent's own weight; what was folded away stands last, as
``other``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

TOTAL: Final = "total"
OTHER: Final = "other"


@dataclass(slots=True)
class Node:
    """A call path: its weight with all callees (``total``), without (``own``), and its callees by name."""

    total: int = 0
    own: int = 0
    children: dict[str, Node] = field(default_factory=dict)


def build_tree(stacks: Iterable[tuple[Iterable[str], int]]) -> Node:
    """The tree of weighted stacks, root first. Its root stands for all of them."""
    root = Node()
    for frames, weight in stacks:
        node = root
        node.total += weight
        for frame in frames:
            child = node.children.get(frame)
            if child is None:
                child = node.children[frame] = Node()
            child.total += weight
            node = child
        node.own += weight
    return root


def all_nodes(root: Node) -> Iterator[Node]:
    """Every node below the root, in no order. Not recursive: stacks are as deep as their senders like."""
    waiting = list(root.children.values())
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.children.values())


def smallest_kept(root: Node, max_nodes: int) -> int:
    """The total below which nodes are folded, so that about ``max_nodes`` are left."""
    largest = heapq.nlargest(max_nodes, (node.total for node in all_nodes(root)))
    return largest[-1] if len(largest) == max_nodes else 0


@dataclass(slots=True)
class _Placed:
    """A node with its place: distance of its left edge from the left edge of the graph."""

    name: str
    node: Node
    left: int


def flamebearer(root: Node, max_nodes: int) -> dict[str, Any]:
    """``{"names", "levels", "numTicks", "maxSelf"}`` of a tree."""
    threshold = smallest_kept(root, max_nodes)
    indexes: dict[str, int] = {}
    levels: list[list[int]] = []
    max_self = 0
    level = [_Placed(TOTAL, root, 0)]
    while level:
        numbers: list[int] = []
        end = 0
        for placed in level:
            node = placed.node
            index = indexes.setdefault(placed.name, len(indexes))
            numbers += (placed.left - end, node.total, node.own, index)
            end = placed.left + node.total
            max_self = max(max_self, node.own)
        levels.append(numbers)
        level = [child for placed in level for child in _place_children(placed, threshold)]
    return {"names": list(indexes), "levels": levels, "numTicks": root.total, "maxSelf": max_self}


def _place_children(parent: _Placed, threshold: int) -> Iterator[_Placed]:
    left = parent.left + parent.node.own
    folded = 0
    for name, node in sorted(parent.node.children.items()):
        if node.total < threshold:
            folded += node.total
            continue
        yield _Placed(name, node, left)
        left += node.total
    if folded:
        yield _Placed(OTHER, Node(folded, folded), left)
