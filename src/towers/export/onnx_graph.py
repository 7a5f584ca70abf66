"""An ONNX graph as it grows: nodes, constants, and the checks of lengths and word ids.

What does not fit ends in an index that is out of bounds: the graph's way to say "assert". Runtimes print the name of
the operator that failed, so its name says what is demanded.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:  # numpy comes with onnx
    from numpy.typing import NDArray

OPSET, IR_VERSION = 18, 8
"""The lowest opset that has all these operators, so that older runtimes read the file."""

FLOAT, INT32 = 1, 6  # of onnx.TensorProto


class Graph:
    """Nodes and constants as they are added; a result is the name of its value.

    All names begin with `prefix`: a graph inside another one has names of its own.
    """

    def __init__(self, prefix: str = "") -> None:
        import onnx

        self._helper: Any = onnx.helper
        self._numpy: Any = onnx.numpy_helper
        self._prefix = prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; the name of its output. The attribute `name` is that of the operator itself."""
        return self.several(1, kind, *inputs, **attributes)[0]

    def several(self, outputs: int, kind: str, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operator with several outputs."""
        names = [f"{self._prefix}{kind.lower()}_{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(self._helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: "NDArray[Any] | Sequence[int] | int") -> str:
        """Add a constant; ints are int64."""
        import numpy as np

        array = value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        name = f"{self._prefix}constant_{len(self.constants)}"
        self.constants.append(self._numpy.from_array(np.ascontiguousarray(array), name))
        return name

    def size(self, value: str, axis: int) -> str:
        """The size of an axis, as one entry."""
        return self.node("Shape", value, start=axis, end=axis + 1)

    def over_steps(self, step: "Step", states: Sequence[tuple[str, int]], x: str, width: int) -> list[str]:
        """Scan: walk over x (steps, batch, width).

        Args:
            step: from the graph of a step, its states and its row of x, to the next states and what it gives.
            states: the first ones (batch, width), each with its width; what a step gives is as wide as the first.

        Returns:
            The last states, then (steps, batch, width) of what the steps gave.
        """
        inner = Graph(f"{self._prefix}step_{len(self.nodes)}_")
        widths = [*(own for _, own in states), width]
        taken = [f"{inner._prefix}{place}" for place in range(len(widths))]
        given = [inner.node("Identity", value) for value in step(inner, *taken)]  # an output may not be given twice
        kinds = zip([*taken, *given], [*widths, *widths[:-1], widths[0]], strict=True)
        values = [self._helper.make_tensor_value_info(name, FLOAT, [None, own]) for name, own in kinds]
        body = self._helper.make_graph(inner.nodes, "step", values[: len(taken)], values[len(taken) :], inner.constants)
        first = [name for name, _ in states]
        return self.several(len(given), "Scan", *first, x, num_scan_inputs=1, body=body)


Step = Callable[..., Sequence[str]]


def checked_lengths(graph: Graph, most: str, lengths: str, *, lowest: int, unit: str) -> str:
    """The input `lengths`; one below `lowest`, or above the value `most`, reads past the end of a constant."""
    enough = graph.node("GreaterOrEqual", lengths, graph.constant([lowest]))
    fitting = graph.node("And", enough, graph.node("LessOrEqual", lengths, most))
    place = graph.node("Where", fitting, graph.constant([0]), graph.constant([1 << 20]))
    demand = f"{lengths}_must_be_from_{lowest}_to_the_number_of_{unit}"
    return graph.node("Add", lengths, graph.node("Gather", graph.constant([0]), place, axis=0, name=demand))


def same_batch(graph: Graph, batches: Sequence[tuple[str, str, int]]) -> str:
    """0, in an int64 constant of one entry, where values have the same size; else it reads past the end of it.

    Operators of ONNX broadcast: a batch of one sentence would be compared with every other one.

    Args:
        batches: what it is for people, the value, and which of its axes is the batch.
    """
    sizes = graph.node("Concat", *(graph.size(value, axis) for _, value, axis in batches), axis=0)
    largest, smallest = graph.node("ReduceMax", sizes), graph.node("ReduceMin", sizes)
    place = graph.node("Sub", largest, smallest)
    demand = f"{'_and_'.join(name for name, _, _ in batches)}_must_have_the_same_batch"
    return graph.node("Gather", graph.constant([0]), place, axis=0, name=demand)


def doubt(graph: Graph, values: str) -> str:
    """0 for each row of values (..., width), as (...), and NaN where a number of it is NaN or infinite.

    Maxima and LSTMs of runtimes take NaN for a number. What is added to their results puts it through.
    """
    import numpy as np

    total = graph.node("ReduceSum", values, graph.constant([-1]), keepdims=0)
    return graph.node("Mul", total, graph.constant(np.zeros((), np.float32)))


def looked_up(graph: Graph, table: str, ids: str, lengths: str | None) -> str:
    """The vectors (batch, words, width) of the input `ids` (batch, words); one that is no row of the table is an error.

    Ids past the end of a sentence are not read; they count as 0.
    """
    zero, one, two = (graph.constant([number]) for number in range(3))
    real = ids
    if lengths is not None:
        words = graph.node("Squeeze", graph.node("Slice", graph.node("Shape", ids), one, two), zero)
        place = graph.node("Range", graph.constant(0), words, graph.constant(1))
        real = graph.node("Where", graph.node("Less", place, graph.node("Unsqueeze", lengths, one)), ids, zero)
    rows = graph.node("Slice", graph.node("Shape", table), zero, one)
    row = graph.node("Where", graph.node("Less", real, zero), rows, real)  # ONNX counts -1 from the end
    return graph.node("Gather", table, row, axis=0, name=f"{ids}_must_be_from_0_to_the_last_row_of_the_table")


def numbers(parameter: Tensor) -> "NDArray[Any]":
    """The values of a parameter."""
    return parameter.detach().cpu().numpy()
