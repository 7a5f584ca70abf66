"""What `verify` and `trace` say: a verdict on a module, and the walk of the shapes through it, as text and as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

from towers.contracts.proofs.flow import Source
from towers.contracts.proofs.svg import to_svg
from towers.contracts.proofs.verdicts import WORST_FIRST, Finding, Verdict

WIDTH = 100


@dataclass(frozen=True)
class Port:
    """What a module takes as one argument, or gives as its result."""

    name: str
    """The argument's name, or "return"."""
    shape: tuple[str, ...]
    """Its axes, one by one; where it consists of several tensors, a text for each."""
    demand: tuple[str, ...]
    """What the contract demands, in the same form; empty without a contract."""
    texts: tuple[str, ...]
    """The same as the annotation has it, with braces."""
    sources: frozenset[Source]
    """The rows and the inputs that it was computed from."""


@dataclass(frozen=True)
class TraceRow:
    """One module or contract that was passed."""

    path: str
    kind: str
    """The module's class, or the function that has the contract."""
    came: str
    """The shapes of its inputs, in axis names."""
    went: str
    """The shapes of its result, in axis names; empty where it raised."""
    demand: str
    """The axes in its contract, inputs -> result; empty for a module without a contract."""
    numbers: str
    """The same shapes in numbers, where real inputs were given."""
    failed: bool
    is_module: bool = True
    """Whether it is a module, not a contracted function."""
    outer: int | None = None
    """The row of the module in which it ran."""
    arrived: tuple[Port, ...] = ()
    left: tuple[Port, ...] = ()


@dataclass(frozen=True)
class ShapeTrace:
    """For each module and contract, in the order of the calls: the expected axes and the shapes that arrived.

    A notebook shows it as a picture, which `to_svg` gives as text.

    Attributes:
        module: the class of what was run.
        rows: one for each module and contract.
        error: the error that ended the run; empty if there was none.
        argument: the argument that did not fit its contract, or "return".
        axis: its axis that did not fit, as written in the annotation.

    >>> from towers import FeaturePool
    >>> from towers.contracts import trace
    >>> for row in trace(FeaturePool(2)).rows:
    ...     print(row.came, "->", row.went)
    (batch, steps, 32) -> (batch, steps, 16)
    (batch, steps, 32) -> (batch, steps, 32)
    """

    module: str
    rows: tuple[TraceRow, ...]
    error: str = ""
    argument: str = ""
    axis: str | None = None

    def __str__(self) -> str:
        return "\n".join([*self.lines(), *([self.error] if self.error else [])])

    def lines(self) -> list[str]:
        """A line or more for each row, none longer than 98 letters."""
        lines: list[str] = []
        for row in self.rows:
            mark = "!" if row.failed else " "
            indented = "  " * row.path.count(".") + (row.path or "(itself)")
            arrow = f"{row.came} -> {row.went or '…'}"
            lines.append(_fitted(f"{mark} {indented}: {row.kind}  {arrow}"))
            lines += [_fitted(f"      {text}") for text in (row.demand, row.numbers) if text]
        return lines

    def to_json(self) -> list[dict[str, Any]]:
        """One object for each row."""
        told = ("path", "kind", "came", "went", "demand", "numbers", "failed")
        return [{name: getattr(row, name) for name in told} for row in self.rows]

    def to_svg(self) -> str:
        """The picture as text of an SVG file: modules from left to right, what arrives beside what is demanded.

        Axis names stand on the edges; an edge that fails is red, with the reason below it.
        """
        return to_svg(self, self.module, "failed" if self.error else "")

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x: auto">{self.to_svg()}</div>'


def _fitted(text: str) -> str:
    return text if len(text) <= WIDTH - 2 else text[: WIDTH - 3] + "…"


@dataclass(frozen=True)
class ContractVerdict:
    """The verdict on one contract that was checked during the runs."""

    path: str
    """The module's path in the tree; empty for the module itself."""
    contract: str
    """The function that has it: "RaggedLSTM.forward"."""
    verdict: Verdict
    calls: int
    """How often it was checked, over all runs."""


@dataclass(frozen=True)
class Proof:
    """The verdict on a module, true only where it is "proven".

    `verdict` is one of
    "proven": every contract holds for all sizes;
    "holds if": only under `conditions`;
    "specialised": the code fixed an axis, said by `conditions`;
    "failed": `message` is what a run-time check says, with axis names in place of numbers;
    "not provable": torch cannot run it on symbolic sizes; `message` says which operation and where.

    Whatever it is, it has been tried with real tensors, `tried` times, but for `untried`.

    Attributes:
        module: the class of what was verified.
        verdict: as above.
        findings: the verdict on each way to call it, with its message and place.
        contracts: the verdict on each contract that was checked on the way.
        axes: each axis with the sizes that it can have.
        trace: the shapes at each module and contract.
        runs: how often it was run on symbolic sizes.
        seconds: the time of all this.
        assumptions: what the verdict is for, beyond sizes: "inputs are float32", "causal is False".
        tried: how often it was run with real tensors.
        untried: why at no sizes, or not at all that were planned ("tried at 14 of 90 sizes"); None if at all of them.
        remarks: what real runs showed that is no fault: "not in bfloat16: …", "needs values that fit: …".

    >>> from towers import FeaturePool
    >>> from towers.contracts import verify
    >>> proof = verify(FeaturePool(2))
    >>> proof.verdict, bool(proof), proof.tried > 0
    ('proven', True, True)
    """

    module: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    contracts: tuple[ContractVerdict, ...]
    axes: dict[str, str]
    trace: ShapeTrace
    runs: int
    seconds: float
    assumptions: tuple[str, ...]
    tried: int
    untried: str | None
    remarks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.verdict == "proven"

    @property
    def worst(self) -> Finding:
        """The finding that decides."""
        return min(self.findings, key=lambda finding: WORST_FIRST.index(finding.verdict))

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions on axes under which it holds, for all ways to call it."""
        found = [text for finding in self.findings for text in finding.conditions]
        return tuple(dict.fromkeys(found)) if self.verdict in ("holds if", "specialised") else ()

    @property
    def message(self) -> str:
        """Why it is not proven; empty if it is."""
        return self.worst.message

    @property
    def place(self) -> str:
        """The place of the failure: module, file and line."""
        return self.worst.place

    def __str__(self) -> str:
        lines = _wrapped(f"{self.module}: {self.headline()}")
        free = ", ".join(self.axes.values())
        lines += _wrapped(f"for all {free}" if free else "for the sizes that are fixed or were given")
        lines += _table(self.contracts)
        if self.verdict != "proven":
            lines += self._why()
        lines += _wrapped("assumed: " + "; ".join(self.assumptions))
        for remark in self.remarks:
            lines += _wrapped(remark)
        lines.append(f"{self.runs} symbolic runs, {self.tried} real ones, {self.seconds:.2f} s")
        if self.untried is not None:
            lines += _wrapped(self.untried if self.tried else f"not tried with real tensors: {self.untried}")
        return "\n".join(lines)

    def headline(self) -> str:
        """The verdict in one line."""
        worst = self.worst
        told = f" {' and '.join(self.conditions)}" if self.conditions else ""
        return f"{self.verdict}{told}" + (f" ({worst.label})" if worst.label and not self else "")

    def _why(self) -> list[str]:
        worst = self.worst
        at = f"at {worst.place}: " if worst.place and worst.verdict != "not provable" else ""
        lines = _wrapped(at + worst.message)
        if worst.verdict in ("failed", "holds if", "specialised"):
            lines += ["shapes up to there:", *(f"  {line}" for line in self.trace.lines())]
        return lines

    def to_svg(self) -> str:
        """The picture of `ShapeTrace.to_svg`, of the run that decides, under the verdict."""
        free = ", ".join(self.axes.values())
        title = f"{self.module}: {self.headline()}" + (f", for all {free}" if free and self else "")
        return to_svg(self.trace, title, self.verdict, self.message)

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x: auto">{self.to_svg()}</div><pre>{escape(str(self))}</pre>'

    def to_json(self) -> dict[str, Any]:
        """The proof as plain data."""
        return {
            "module": self.module,
            "verdict": self.verdict,
            "proven": bool(self),
            "axes": self.axes,
            "conditions": list(self.conditions),
            "message": self.message,
            "place": self.place,
            "assumptions": list(self.assumptions),
            "tried": self.tried,
            "untried": self.untried,
            "remarks": list(self.remarks),
            "cases": [
                {
                    "arguments": finding.label,
                    "verdict": finding.verdict,
                    "conditions": list(finding.conditions),
                    "message": finding.message,
                    "place": finding.place,
                    "runs": finding.runs,
                }
                for finding in self.findings
            ],
            "contracts": [
                {"path": each.path, "contract": each.contract, "verdict": each.verdict, "calls": each.calls}
                for each in self.contracts
            ],
            "trace": self.trace.to_json(),
            "runs": self.runs,
            "seconds": round(self.seconds, 4),
        }


def _wrapped(text: str) -> list[str]:
    return [piece for line in text.splitlines() for piece in (wrap(line, WIDTH, subsequent_indent="    ") or [""])]


def _table(contracts: Sequence[ContractVerdict]) -> list[str]:
    rows = [("module", "contract", "verdict"), *((c.path or "(itself)", c.contract, c.verdict) for c in contracts)]
    widths = [min(max(len(row[at]) for row in rows), 40) for at in range(2)]
    return [f"  {_cut(row[0], widths[0])}  {_cut(row[1], widths[1])}  {row[2]}" for row in rows]


def _cut(text: str, width: int) -> str:
    return (text if len(text) <= width else "…" + text[1 - width :]).ljust(width)
