"""The picture of a run: which modules are boxes, where they stand, and which edges go between them.

The modules that call others are frames. Of a deep network only as many are opened as fit on a picture, and always
those around the module that failed. `svg` draws what is laid out here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING

from towers.contracts.proofs.flow import Source

if TYPE_CHECKING:
    from towers.contracts.proofs.proof import Port, ShapeTrace, TraceRow

MOST_BOXES = 14
"""A frame is opened while the picture has no more boxes than this."""
MOST_LINES = 6
"""The axes of one tensor, and the tensors of one box, that are shown."""
LINE, HEAD, GAP, APART = 17, 44, 24, 24
"""Pixels: a line of text, the head of a box, between two columns, between two boxes of a column."""
LETTER, BOLD, SMALL = 7.4, 8.6, 7.3
"""The width of a letter of an axis, of a title and of a class's name."""


@dataclass(eq=False)
class Box:
    """A module, an input or the result; a frame if there are others in it. Its port is the place left of it."""

    title: str
    kind: str = ""
    ports: Sequence["Port"] = ()
    inner: list["Box"] = field(default_factory=list["Box"])
    covers: frozenset[Source] = frozenset()
    """The rows that it stands for, or the name of an input."""
    failed: bool = False
    note: Sequence[str] = ()
    """What is said below it."""
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0
    port: float = 0
    """The width of its port, where the axes stand that arrive."""
    line: float = HEAD / 2
    """Where the first edge arrives, from its top."""

    def leaves(self) -> Iterator["Box"]:
        """The boxes without others in them."""
        if not self.inner:
            yield self
        for box in self.inner:
            yield from box.leaves()

    def lines(self) -> list[tuple["Port", float]]:
        """Each port with the height, from the top of the box, where its edge arrives."""
        found: list[tuple[Port, float]] = []
        y = HEAD / 2
        for port in self.ports:
            found.append((port, y))
            y = (y + HEAD / 2 if len(found) == 1 else y + LINE / 2) + LINE * rows_of(port) + LINE / 2
        return found

    @property
    def size(self) -> tuple[float, float]:
        """All that it takes, with its port and its note."""
        note = max((len(line) for line in self.note), default=0) * SMALL
        return self.port + max(self.width, note), self.height + (len(self.note) + 0.5 * bool(self.note)) * LINE

    def move(self, right: float, down: float) -> None:
        """Move it with all that is in it."""
        self.x, self.y = self.x + right, self.y + down
        for box in self.inner:
            box.move(right, down)


@dataclass(frozen=True)
class Edge:
    """From one box to a port of another one."""

    source: Box
    target: Box
    y: float
    """Where it arrives, from the target's top."""
    failed: bool


def rows_of(port: "Port") -> int:
    """The lines that a port's axes take."""
    return min(max(len(port.shape), len(port.demand)), MOST_LINES)


def takes(port: "Port", argument: str) -> bool:
    """Whether an argument, or a part of it such as `x[0]`, arrives at a port."""
    return any(argument == name or argument.startswith((f"{name}[", f"{name}.")) for name in port.name.split(", "))


def laid_out(trace: "ShapeTrace") -> tuple[Box, list[Edge]]:
    """The boxes of a picture in a frame for all, at their places, and the edges."""
    if not trace.rows:  # the time was over before anything ran
        return Box(trace.module), []
    whole = Box(trace.module, inner=_boxes(trace))
    edges = _edges(whole, trace)
    _place(whole, edges)
    inputs = [box for box in whole.inner if box.kind == "input"]
    for box in inputs:  # beside what it goes to
        targets = [edge.target.y + edge.y for edge in edges if edge.source is box]
        box.y = sum(targets) / len(targets) - box.line if targets else box.y
    for above, below in pairwise(inputs):
        below.y = max(below.y, above.y + above.height + LINE / 2)
    return whole, edges


# Which boxes there are.


def _boxes(trace: "ShapeTrace") -> list[Box]:
    rows = trace.rows
    failing = max((at for at, row in enumerate(rows) if row.failed), default=None)
    inside: dict[int, list[int]] = {}
    calling = {row.outer for row in rows}  # a function is drawn where it calls modules
    for at, row in enumerate(rows):
        if row.outer is not None and (row.is_module or at == failing or at in calling):
            inside.setdefault(row.outer, []).append(at)
    opened = _opened(inside, rows, failing)
    root = _box(0, rows, inside, opened, failing, "")
    note = _reason(trace)
    inputs = [Box(port.name or "input", "input", covers=port.sources) for port in rows[0].arrived]
    results: list[Box] = []
    if rows[0].left and not (root.inner and failing == 0):
        results.append(Box("result", "result", rows[0].left, failed=failing == 0))
        root.failed = False
    boxes = [*inputs, *(root.inner or [root]), *results]
    for box in _outside_in(boxes):
        box.note = note if box.failed else ()
    return boxes


def _reason(trace: "ShapeTrace") -> list[str]:
    """The first line of the error without the place, in short lines."""
    first = trace.error.partition("\n")[0]
    subject = "the result" if trace.argument == "return" else trace.argument
    return wrap(first.rpartition(f"{subject}: ")[2] if subject else first, 30)[:5]


def _opened(inside: Mapping[int, Sequence[int]], rows: Sequence["TraceRow"], failing: int | None) -> set[int]:
    """The rows that are drawn as frames."""
    opened, queue, count = {0}, [0], len(inside.get(0, ()))
    at = failing
    while at is not None:  # the frames around what failed
        at = rows[at].outer
        opened.update([] if at is None else [at])
    while queue:
        children = inside.get(queue.pop(0), ())
        for child in children:
            more = len(inside.get(child, ())) - 1
            if child in opened or (more >= 0 and count + more <= MOST_BOXES):
                opened.add(child)
                count += more
                queue.append(child)
    return opened


def _box(
    at: int, rows: Sequence["TraceRow"], inside: Mapping[int, Sequence[int]], opened: set[int], failing: int | None,
    outer: str,
) -> Box:  # fmt: skip
    row = rows[at]
    title = row.path.removeprefix(f"{outer}.") if row.is_module else row.kind.rpartition(".")[2]
    box = Box(
        title or row.kind,
        row.kind if title and row.is_module else "",
        failed=at == failing,
        covers=_covered(at, inside),
    )
    if at in opened and at in inside:
        box.inner = [_box(child, rows, inside, opened, failing, row.path or outer) for child in inside[at]]
        box.inner = _shortened(box.inner)
        if box.failed:  # its result, or an operation of its own
            box.failed = False
            box.inner.append(Box("result" if row.left else "raised here", "result", row.left, failed=True))
    else:
        box.ports = _together(row.arrived)[:MOST_LINES]
    return box


def _together(ports: Iterable["Port"]) -> list["Port"]:
    """The ports of a box; one for those that take the same, as query, key and value of self-attention."""
    found: dict[object, Port] = {}
    for port in ports:
        same = (port.shape, port.demand, port.sources)
        before = found.get(same)
        found[same] = port if before is None else replace(before, name=f"{before.name}, {port.name}")
    return list(found.values())


def _covered(at: int, inside: Mapping[int, Sequence[int]]) -> frozenset[Source]:
    return frozenset[Source]({at}).union(*(_covered(child, inside) for child in inside.get(at, ())))


def _shortened(boxes: list[Box]) -> list[Box]:
    """At most twice as many as are usual: the first, the last and what failed; one box for those left out."""
    if len(boxes) <= 2 * MOST_BOXES:
        return boxes
    shown: list[Box] = []
    left_out: list[Box] = []
    for at, box in enumerate(boxes):
        kept = at < MOST_BOXES // 2 or at >= len(boxes) - MOST_BOXES // 2
        if not kept and not any(leaf.failed for leaf in box.leaves()):
            left_out.append(box)
            continue
        shown += [_more(left_out)] if left_out else []
        left_out = []
        shown.append(box)
    return shown


def _more(boxes: Sequence[Box]) -> Box:
    covers = frozenset[Source]().union(*(box.covers for box in boxes))
    return Box(f"… {len(boxes)} more", ports=next(boxes[0].leaves()).ports, covers=covers)


# Which edges there are.


def _edges(whole: Box, trace: "ShapeTrace") -> list[Edge]:
    of_source: dict[Source, Box] = {}
    for box in _outside_in(whole.inner):  # what is inside comes later, and counts
        of_source |= dict.fromkeys(box.covers, next(reversed(list(box.leaves()))))
    found: dict[tuple[int, int, float], Edge] = {}
    before: Box | None = None
    for target in whole.leaves():
        if target.failed and not target.ports and before is not None:  # where its inputs come from is not known
            found[id(before), id(target), 0] = Edge(before, target, target.line, failed=True)
        before = target
        for port, y in target.lines():
            failed = target.failed and (not trace.argument or takes(port, trace.argument))
            for source in sorted(port.sources, key=str):
                box = of_source.get(source)
                if box is not None and box is not target:
                    found.setdefault((id(box), id(target), y), Edge(box, target, y, failed))
    return list(found.values())


def _outside_in(boxes: Iterable[Box]) -> Iterator[Box]:
    for box in boxes:
        yield box
        yield from _outside_in(box.inner)


# Where they stand.


def _place(box: Box, edges: Sequence[Edge]) -> None:
    """The size of a box, and where those in it stand from its left upper corner."""
    if not box.inner:
        _measure(box)
        return
    for one in box.inner:
        _place(one, edges)
    right = 0.0
    for column in _columns(box.inner, edges):
        down = -column[0].line if len(column) == 1 else -(sum(one.size[1] + APART for one in column) - APART) / 2
        for one in column:
            one.move(right, down)
            down += one.size[1] + APART
        right += max(one.size[0] for one in column) + GAP
    arcs = any(edge for edge in edges if _skips(edge, box.inner))
    top = min(one.y for one in box.inner) - LINE * (2 + arcs)
    for one in box.inner:
        one.move(LINE, -top)
    box.width = right - GAP + 2 * LINE
    box.height = max(one.y + one.size[1] for one in box.inner) + LINE
    box.line = -top


def _columns(boxes: Sequence[Box], edges: Sequence[Edge]) -> list[list[Box]]:
    """From left to right: a box stands right of all that its edges come from."""
    home = {id(leaf): at for at, box in enumerate(boxes) for leaf in box.leaves()}
    pairs = {(home[id(e.source)], home[id(e.target)]) for e in edges if id(e.source) in home and id(e.target) in home}
    rank = [0] * len(boxes)
    for at, box in enumerate(boxes):  # in the order of the calls: what comes before has its place already
        before = [rank[source] for source, target in pairs if target == at and source < at]
        rank[at] = 1 + max(before, default=-1)
        if box.kind == "result":
            rank[at] = max(rank[:at], default=-1) + 1
    return [[box for box, own in zip(boxes, rank, strict=True) if own == at] for at in sorted(set(rank))]


def _skips(edge: Edge, boxes: Sequence[Box]) -> bool:
    """Whether an edge between two of some boxes passes over another one of them."""
    if not {edge.source, edge.target} <= {*boxes}:
        return False
    return any(crosses(edge, box) for box in boxes)


def crosses(edge: Edge, box: Box) -> bool:
    """Whether the straight line of an edge runs through a box."""
    start, end = edge.source, edge.target
    left, right = start.x + start.port + start.width, end.x
    if box in (start, end) or box.x + box.port + box.width <= left or box.x >= right:
        return False
    share = (box.x + (box.port + box.width) / 2 - left) / max(right - left, 1)
    y = start.y + start.line + min(max(share, 0), 1) * (end.y + edge.y - start.y - start.line)
    return box.y - 4 < y < box.y + box.height + 4


def _measure(box: Box) -> None:
    lines = [line for port in box.ports for line in port.demand[:MOST_LINES]]
    arriving = [line for port in box.ports for line in port.shape[:MOST_LINES]]
    names = [port.name for port in box.ports[1:]]
    texts = [len(box.title) * BOLD, len(box.kind) * SMALL, *(len(line) * LETTER for line in [*lines, *names])]
    if box.kind == "input":
        box.width, box.height, box.line = max(texts[0], 10) + 8, LINE, LINE / 2
        return
    box.width = max(texts) + 20
    box.port = max((len(line) for line in arriving), default=0) * LETTER + 14 * bool(arriving)
    last = box.lines()[-1] if box.ports else None
    head = HEAD / 2 if len(box.ports) == 1 else LINE / 2
    box.height = HEAD if last is None else max(HEAD, last[1] + head + LINE * rows_of(last[0]) + 8)
