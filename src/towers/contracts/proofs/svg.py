"""The picture of a run as text of an SVG file."""

from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING

from towers.contracts.proofs.picture import BOLD, HEAD, LINE, MOST_LINES, Box, Edge, crosses, laid_out, takes

if TYPE_CHECKING:
    from towers.contracts.proofs.proof import Port, ShapeTrace

INK, FAINT, BLUE, GREEN, RED, AMBER = "#1f2328", "#6e7781", "#0550ae", "#1a7f37", "#cf222e", "#9a6700"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
OF_VERDICT = {"proven": GREEN, "failed": RED, "holds if": AMBER, "specialised": AMBER, "not provable": AMBER}
LEGEND = (("what arrives", BLUE), ("what the contract demands", INK), ("what does not fit", RED))


def to_svg(trace: "ShapeTrace", title: str, verdict: str = "", message: str = "") -> str:
    """A picture of a run.

    Args:
        trace: the run.
        title: what stands above the picture.
        verdict: the verdict, which gives the title its colour.
        message: what is said below it in red; by default the error that ended the run.
    """
    whole, edges = laid_out(trace)
    message = message or trace.error
    titles = wrap(title, 100)
    whole.move(0, LINE * len(titles) - LINE / 2)
    parts = [part for box in whole.inner for part in _box(box, trace)]
    parts = [*(_edge(edge, whole) for edge in edges), *parts]
    parts += [
        _text(LINE, 26 + LINE * at, line, _OF_TITLE, OF_VERDICT.get(verdict, INK)) for at, line in enumerate(titles)
    ]
    bottom = whole.y + whole.height + LINE / 2
    x = float(LINE)
    for text, colour in LEGEND[: 3 if trace.error else 2] if trace.rows else ():
        parts.append(_text(x, bottom, text, _SMALL, colour))
        x += 7 * len(text) + LINE
    lines = [piece for line in message.splitlines() for piece in wrap(line, 110, subsequent_indent="    ") or [""]]
    parts += [_text(LINE, bottom + 30 + LINE * at, line, _MONO, RED) for at, line in enumerate(lines[:12])]
    height = bottom + LINE + (LINE * (len(lines[:12]) + 1) if lines else 0)
    width = max(whole.width, 2 * LINE + max(BOLD * len(line) for line in titles), x)
    width = max(width, 2 * LINE + 7.5 * max(map(len, lines), default=0))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<defs>{_arrow('arrow', FAINT)}{_arrow('wrong', RED) * any(edge.failed for edge in edges)}</defs>",
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


_OF_TITLE = f"font: 600 16px {SANS}"
_BOLD = f"font: 600 14px {SANS}"
_SMALL = f"font: 12px {SANS}"
_MONO = f"font: 12px {MONO}"


def _text(x: float, y: float, text: str, style: str, colour: str = INK, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    place = f'x="{x:.0f}" y="{y:.0f}" style="{style}" fill="{colour}"{anchor}'
    return f'<text {place} xml:space="preserve">{escape(text)}</text>'


def _arrow(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
    )


def _rect(box: Box, colour: str, fill: str, more: str = "") -> str:
    return (
        f'<rect x="{box.x + box.port:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="6" '
        f'fill="{fill}" stroke="{colour}"{more}/>'
    )


def _box(box: Box, trace: "ShapeTrace") -> list[str]:
    left, under = box.x + box.port + 10, box.y + box.height + LINE
    told = [_text(left - 10, under + LINE * at, line, _SMALL, RED) for at, line in enumerate(box.note)]
    if box.kind == "input":
        return [_text(box.x + 4, box.y + box.height - 4, box.title, _BOLD)]
    if box.inner:
        name = f"{box.title}: {box.kind}" if box.kind else box.title
        colour = RED if box.failed else FAINT
        frame = _rect(box, colour if box.failed else "#d0d7de", "none", ' stroke-dasharray="5 4"')
        inside = [part for one in box.inner for part in _box(one, trace)]
        return [frame, _text(box.x + 10, box.y + LINE, name, _SMALL, colour), *inside, *told]
    kind = "" if box.kind == "result" else box.kind
    parts = [
        _rect(box, RED if box.failed else "#8c959f", "none" if box.kind == "result" else "#f6f8fa"),
        _text(left, box.y + (18 if kind else 27), box.title, _BOLD),
        _text(left, box.y + 35, kind, _SMALL, FAINT),
    ]
    for at, (port, y) in enumerate(box.lines()):
        wrong = box.failed and takes(port, trace.argument)
        y += box.y + (HEAD / 2 if at == 0 else LINE / 2) + LINE - 5
        if at > 0:
            parts.append(_text(left, y - LINE, port.name, _SMALL, FAINT))
        bad = _wrong_lines(port, trace) if wrong else set[int]()
        for line in range(MOST_LINES):
            down = y + LINE * line
            if line < len(port.shape):
                text = port.shape[line] if line < MOST_LINES - 1 or len(port.shape) == MOST_LINES else "…"
                parts.append(_text(box.x + box.port - 7, down, text, _MONO, RED if line in bad else BLUE, end=True))
            if line < len(port.demand):
                parts.append(_text(left, down, port.demand[line], _MONO, RED if line in bad else INK))
    return [*parts, *told]


def _wrong_lines(port: "Port", trace: "ShapeTrace") -> set[int]:
    """The lines of a port whose axes do not fit; all where it is none of them alone."""
    every = set(range(max(len(port.shape), len(port.demand))))
    if trace.axis is None or not len(port.shape) == len(port.demand) == len(port.texts):
        return every
    return {at for at in every if port.texts[at] == trace.axis} or every


def _edge(edge: Edge, whole: Box) -> str:
    start, end = edge.source, edge.target
    x1, y1 = start.x + start.port + start.width, start.y + start.line
    x2, y2 = end.x, end.y + edge.y
    colour, arrow = (RED, "wrong") if edge.failed else (FAINT, "arrow")
    passed = [box for box in whole.leaves() if crosses(edge, box)]
    if passed:
        top = min(box.y for box in passed) - LINE
        path = (
            f"M{x1:.0f},{y1:.0f} C{x1 + 20:.0f},{y1:.0f} {x1 + 10:.0f},{top:.0f} {x1 + 40:.0f},{top:.0f} "
            f"L{x2 - 30:.0f},{top:.0f} C{x2:.0f},{top:.0f} {x2 - 12:.0f},{y2:.0f} {x2 + 4:.0f},{y2:.0f}"
        )
    else:
        middle = (x2 - x1) / 2
        path = f"M{x1:.0f},{y1:.0f} C{x1 + middle:.0f},{y1:.0f} {x2 - middle:.0f},{y2:.0f} {x2:.0f},{y2:.0f}"
    path += f" L{end.x + end.port:.0f},{y2:.0f}"
    width = 2 if edge.failed else 1.5
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" marker-end="url(#{arrow})"/>'
