"""Each shape rule beside the real operation, on random configurations: a rule that lies proves falsehoods."""

import random
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import sympy
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from towers import PhraseConv, Ragged, RaggedLSTM, Tower
from towers.contracts import contract, modes, verify
from towers.contracts.proofs.fast_meta import lying
from towers.contracts.proofs.layer_rules import expected_hidden_size
from towers.contracts.proofs.ranges import Span
from towers.contracts.proofs.shape_rules import Rules
from towers.contracts.proofs.symbols import Symbols
from towers.layers.shift_add import add_neighbours

COUNT = 200

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

Sizes = dict[str, int]


def shapes(value: Any) -> Any:
    if isinstance(value, PackedSequence):
        return shapes(value.data)
    if isinstance(value, Ragged):
        return shapes((value.values, value.offsets))
    if isinstance(value, (tuple, list)):
        return [shapes(item) for item in value]
    return tuple(value.shape)


def by_rule(call: Callable[[Callable[..., Tensor], Any], Any], sizes: Sizes, unknown: Sizes) -> Any:
    """The shapes that the rules give on symbols, with the symbols replaced by the sizes."""
    symbols = Symbols({name: Span(min(size, 2)) for name, size in sizes.items()}, lambda: "", lambda found: True)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    fake.shape_env, fake.cache_enabled = symbols.env, False  # no two configurations have the same symbols

    def make(*shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*(symbols.sizes.get(size, size) for size in shape), dtype=dtype)

    with fake, Rules(symbols), modes.watched(lambda signature, arguments, run: run()):
        result = call(make, symbols.sizes)
        axes = {symbols.axes[name]: sympy.Integer(size) for name, size in sizes.items()}
        values = {symbol: meaning.xreplace(axes) for symbol, meaning in symbols.names.items()}
        labels = {label: symbol for symbol, label in symbols.labels.items()}

        def number(size: Any) -> Any:
            if isinstance(size, int):
                return size
            known = size.node.expr.xreplace(values)
            free = {symbol: unknown[symbols.labels.get(str(symbol), "any")] for symbol in known.free_symbols}
            return int(known.xreplace(free))

        assert set(labels) <= set(unknown)
        return _numbers(shapes(result), number)


def _numbers(value: Any, number: Callable[[Any], Any]) -> Any:
    return [_numbers(item, number) for item in value] if isinstance(value, list) else tuple(map(number, value))


def real(*shape: Any, sizes: Sizes, dtype: torch.dtype = torch.float32) -> Tensor:
    whole = [sizes.get(size, size) for size in shape]
    return torch.zeros(*whole, dtype=dtype) if not dtype.is_floating_point else torch.randn(*whole)


def cases(seed: int) -> list[random.Random]:
    return [random.Random(seed * COUNT + number) for number in range(COUNT)]


def recurrent(kind: type[nn.RNNBase], choose: random.Random) -> tuple[nn.RNNBase, Sizes, bool]:
    projected = kind is nn.LSTM and choose.random() < 0.4
    hidden = choose.randint(2, 5)
    module = kind(
        choose.randint(1, 5),
        hidden,
        num_layers=choose.randint(1, 3),
        bias=choose.random() < 0.7,
        batch_first=choose.random() < 0.5,
        bidirectional=choose.random() < 0.5,
        **({"proj_size": choose.randint(1, hidden - 1)} if projected else {}),
    )
    sizes = {"batch": choose.randint(1, 6), "time": choose.randint(1, 7)}
    return module, sizes, choose.random() < 0.5


def states(module: nn.RNNBase, make: Callable[..., Tensor], batch: tuple[Any, ...]) -> Any:
    rows = module.num_layers * (2 if module.bidirectional else 1)
    h = make(rows, *batch, module.proj_size or module.hidden_size)
    return (h, make(rows, *batch, module.hidden_size)) if isinstance(module, nn.LSTM) else h


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda kind: kind.__name__)
def test_recurrent_layers(kind: type[nn.RNNBase]):
    for choose in cases(1):
        module, sizes, given = recurrent(kind, choose)
        unbatched = choose.random() < 0.25
        order = ("batch", "time") if module.batch_first else ("time", "batch")
        axes, batch = (("time",), ()) if unbatched else (order, ("batch",))

        def call(make: Callable[..., Tensor], _: Any) -> Any:
            state = states(module, make, batch) if given else None  # noqa: B023
            return module(make(*axes, module.input_size), state)  # noqa: B023

        expected = shapes(call(lambda *shape: real(*shape, sizes=sizes), None))  # noqa: B023
        assert by_rule(call, sizes, {}) == expected


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda kind: kind.__name__)
def test_packing_and_unpacking(kind: type[nn.RNNBase]):
    for choose in cases(2):
        module, sizes, given = recurrent(kind, choose)
        whole = choose.random() < 0.5
        lengths = torch.tensor([choose.randint(1, sizes["time"]) for _ in range(sizes["batch"])])
        order = ("batch", "time") if module.batch_first else ("time", "batch")

        def call(make: Callable[..., Tensor], known: Any) -> Any:
            real_lengths = lengths if known is None else make("batch", dtype=torch.int64)  # noqa: B023
            input = make(*order, module.input_size)  # noqa: B023
            packed = pack_padded_sequence(input, real_lengths.cpu(), module.batch_first, enforce_sorted=False)  # noqa: B023
            state = states(module, make, ("batch",)) if given else None  # noqa: B023
            if known is not None:  # as on the copy that verify makes
                module.get_expected_hidden_size = MethodType(expected_hidden_size, module)  # noqa: B023
            output, end = module(packed, state)  # noqa: B023
            total = {} if not whole else {"total_length": input.shape[1 if module.batch_first else 0]}  # noqa: B023
            return pad_packed_sequence(output, module.batch_first, **total), end  # noqa: B023

        def make(*shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            return real(*shape, sizes=sizes, dtype=dtype)  # noqa: B023

        unknown = {"longest": int(lengths.max()), "tokens": int(lengths.sum())}
        assert by_rule(call, sizes, unknown) == shapes(call(make, None))


def test_max_pool1d_keeps_an_order_of_axes_as_its_gradient_does():
    """Without gradients torch's result is contiguous, with them it is not: a view of it is not proven."""

    class Viewed(nn.Module):
        @contract(where=("time >= 4",))
        def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch n"]:
            return F.max_pool1d(x.transpose(1, 2), 2).view(x.shape[0], -1)

    with pytest.raises(RuntimeError, match="view size is not compatible"):
        Viewed()(torch.zeros(2, 6, 8, requires_grad=True))
    assert verify(Viewed()).verdict not in ("proven", "holds if")


def test_max_pool1d():
    done = 0
    for choose in cases(3) + cases(4):
        kernel = choose.randint(1, 5)
        how = {
            "kernel_size": kernel,
            "stride": choose.choice([None, 1, 2, 3]),
            "padding": choose.randint(0, kernel // 2),
            "dilation": choose.randint(1, 3),
            "ceil_mode": choose.random() < 0.5,
            "return_indices": choose.random() < 0.3,
        }
        sizes = {"batch": choose.randint(1, 4), "length": choose.randint(2, 20)}
        axes = ("batch", 3, "length") if choose.random() < 0.7 else (3, "length")

        def call(make: Callable[..., Tensor], _: Any) -> Any:
            return F.max_pool1d(make(*axes), **how)  # noqa: B023

        try:
            expected = shapes(call(lambda *shape: real(*shape, sizes=sizes), None))  # noqa: B023
        except RuntimeError:
            continue
        done += 1
        fixed = tuple(sizes.get(axis, axis) for axis in axes)
        symbols = {name: size for name, size in sizes.items() if name in axes}

        def on_sizes(make: Callable[..., Tensor], _: Any) -> Any:
            return F.max_pool1d(torch.empty(*fixed), **how)  # noqa: B023

        assert by_rule(on_sizes, {}, {}) == expected
        if how["ceil_mode"] is False and sizes["length"] > 15:
            assert by_rule(call, symbols, {}) == expected
    assert done >= COUNT


def test_linear_relu_and_new_empty():
    for choose in cases(8):
        width, out = choose.randint(1, 5), choose.randint(1, 5)
        sizes = {"batch": choose.randint(1, 4), "time": choose.randint(1, 4)}
        axes = [axis for axis in ("batch", "time", 3) if choose.random() < 0.6] or ["batch"]
        turned, bias = len(axes) > 1 and choose.random() < 0.5, choose.random() < 0.5

        def call(make: Callable[..., Tensor], _: Any) -> Any:
            input = make(*(reversed(axes) if turned else axes), width)  # noqa: B023
            input = input.transpose(0, len(axes) - 1) if turned else input  # noqa: B023
            product = F.linear(input, torch.zeros(out, width), torch.zeros(out) if bias else None)  # noqa: B023
            relu = choose.choice([F.relu, torch.relu])(input)  # noqa: B023
            like = torch.empty_like(input)
            assert relu.squeeze().stride() == like.squeeze().stride()
            return product, relu, input.new_empty(input.shape), input.new_empty(*input.shape, dtype=torch.int64)

        expected = call(lambda *shape: real(*shape, sizes=sizes), None)  # noqa: B023
        assert expected[0].is_contiguous()
        assert by_rule(call, {name: size for name, size in sizes.items() if name in axes}, {}) == shapes(expected)


def test_axes_of_one_and_rows():
    """Each result lies in memory as the real one does, whatever was done to its axes before."""
    turns = [
        lambda x: x,
        lambda x: x.transpose(0, -1),
        lambda x: torch.empty_like(x).transpose_(0, -1),
        lambda x: x.new_zeros(x.shape).unsqueeze_(1),
    ]
    for choose in cases(10):
        sizes = {"batch": choose.randint(2, 4), "time": choose.randint(2, 4)}
        axes = [axis for axis in ("batch", "time", 1, 3) if choose.random() < 0.6] or ["batch"]
        choose.shuffle(axes)
        turn, at, more = choose.choice(turns), choose.randint(-len(axes), len(axes) - 1), choose.randint(-3, 3)

        def call(make: Callable[..., Tensor], known: Any) -> Any:
            input = turn(make(*axes))  # noqa: B023
            at_one = max(-input.dim() - 1, min(more, input.dim()))  # noqa: B023
            results = [input.unsqueeze(at_one), torch.unsqueeze(input, at_one), torch.zeros_like(input)]
            results += [input.squeeze(at), torch.squeeze(input, at), torch.empty(input.shape), torch.zeros(2, 3)]  # noqa: B023
            results += [input[row] for row in (0, -1)] + [input[..., 0]]
            results += [input[:, -1], input[(slice(None),) * (input.dim() - 1) + (0,)]] if input.dim() > 1 else []
            if known is None:
                strides.extend(result.stride() for result in results)  # noqa: B023
            else:
                fake.extend(result.is_contiguous() for result in results)  # noqa: B023
            return results

        strides: list[Any] = []
        fake: list[bool] = []
        expected = call(lambda *shape: real(*shape, sizes=sizes), None)  # noqa: B023
        assert by_rule(call, {name: size for name, size in sizes.items() if name in axes}, {}) == shapes(expected)
        assert fake == [result.is_contiguous() for result in expected]


def outermost_first(strides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def test_heads_of_an_attention():
    """Axes are split, turned and dropped on the way to heads; the result lies as the query where the CPU's kernel runs."""
    for choose in cases(11):
        sizes = {"batch": choose.randint(2, 4), "time": choose.randint(2, 5), "other": choose.randint(6, 8)}
        heads, width, packed = 2, choose.randint(2, 3), choose.random() < 0.5
        mask = choose.choice([None, ("time", "other"), ("batch", 1, 1, "other"), (heads, "time", 1), (1, "other")])
        boolean, dropout = choose.random() < 0.5, choose.choice([0.0, 0.0, 0.1])
        wide, scattered = width + choose.randint(0, 1), choose.randint(0, 6)

        def call(make: Callable[..., Tensor], known: Any) -> Any:
            time = sizes["time"] if known is None else known["time"]  # noqa: B023
            batch = sizes["batch"] if known is None else known["batch"]  # noqa: B023
            if packed:  # noqa: B023  (as nn.MultiheadAttention)
                three = make("time", "batch", 3 * heads * width).unflatten(-1, (3, heads * width))  # noqa: B023
                first = three.unsqueeze(0).transpose(0, -2).squeeze(-2).contiguous()[0]
                turned = first.view(time, batch * heads, width).transpose(0, 1)  # noqa: B023
                query = turned.view(batch, heads, time, width)  # noqa: B023
            else:
                turned = first = make("batch", "time", heads * width).unflatten(2, [heads, width])  # noqa: B023
                query = first.transpose(1, 2)
            key, value = make("batch", heads, "other", width), make("batch", heads, "other", wide)  # noqa: B023
            given = None if mask is None else make(*mask, dtype=torch.bool if boolean else torch.float32)  # noqa: B023
            parts = [query, key, value]
            if scattered < 3:  # a row of one of them does not lie together  # noqa: B023
                parts[scattered] = parts[scattered].transpose(-1, -2).contiguous().transpose(-1, -2)  # noqa: B023
            scores = F.scaled_dot_product_attention(*parts, given, dropout)  # noqa: B023
            # Time outside of the batch is left to torch's own steps, which take a tenth of a second.
            one = query[:, 0].contiguous() if packed and scattered else query[:, 0]  # noqa: B023
            causal = F.scaled_dot_product_attention(one, one, one, is_causal=True)
            results = [first, turned, query, query[:, 0], scores, causal]
            lies.append([outermost_first(each.stride()) if known is None else lying(each) for each in results])  # noqa: B023
            return results

        lies: list[Any] = []
        expected = call(lambda *shape, dtype=torch.float32: real(*shape, sizes=sizes, dtype=dtype), None)  # noqa: B023
        assert by_rule(call, sizes, {}) == shapes(expected)
        assert lies[1][:5] == lies[0][:5]
        assert lies[1][5] in (None, lies[0][5])


def test_attention_that_does_not_fit_is_left_to_torch():
    """Values of another length than the keys are refused too, which the CPU's kernel reads in silence."""
    query, short, other = (2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 6)
    for key, value, dtype in (
        (other, short, torch.float32),
        (query, short, torch.float32),
        (short, short, torch.float64),
    ):

        def call(make: Callable[..., Tensor], _: Any) -> Any:
            parts = torch.empty(query), torch.empty(key, dtype=dtype), torch.empty(value)  # noqa: B023
            return F.scaled_dot_product_attention(*parts)

        with pytest.raises(RuntimeError):
            by_rule(call, {}, {})


def test_the_shares_of_words():
    for choose in cases(9):
        conv = PhraseConv(choose.randint(1, 4), choose.randint(1, 5), choose.randint(1, 3))
        sizes = {"words": choose.randint(1, 9)}

        def call(make: Callable[..., Tensor], _: Any) -> Any:
            return conv.project(make("words", conv.vector_width))  # noqa: B023

        expected = call(lambda *shape: real(*shape, sizes=sizes), None)  # noqa: B023
        assert expected.is_contiguous()
        assert by_rule(call, sizes, {}) == shapes(expected)


def test_ragged_lstm():
    for choose in cases(5):
        hidden = choose.randint(2, 4)
        module = RaggedLSTM(
            choose.randint(1, 4),
            hidden,
            num_layers=choose.randint(1, 2),
            bias=choose.choice([True, False, "single"]),
            bidirectional=choose.random() < 0.5,
            proj_size=choose.choice([0, 1]),
        )
        sizes = {"batch": choose.randint(1, 5), "steps": choose.randint(1, 6)}
        lengths = torch.tensor([choose.randint(0, sizes["steps"]) for _ in range(sizes["batch"])])
        with_lengths, with_state = choose.random() < 0.5, choose.random() < 0.5

        def call(make: Callable[..., Tensor], known: Any) -> Any:
            real_lengths = lengths if known is None else make("batch", dtype=torch.int64)  # noqa: B023
            rows = module.state_rows  # noqa: B023
            state = (make(rows, "batch", module.state_width), make(rows, "batch", module.hidden_size))  # noqa: B023
            return module(  # noqa: B023
                make("batch", "steps", module.input_size),  # noqa: B023
                state if with_state else None,  # noqa: B023
                lengths=real_lengths if with_lengths else None,  # noqa: B023
            )

        def make(*shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            return real(*shape, sizes=sizes, dtype=dtype)  # noqa: B023

        with torch.no_grad():
            assert by_rule(call, sizes, {"any": int(lengths.sum())}) == shapes(call(make, None))


def test_what_ragged_does():
    for choose in cases(6):
        sizes = {"batch": choose.randint(1, 5), "words": choose.randint(1, 6)}
        lengths = torch.tensor([choose.randint(1, sizes["words"]) for _ in range(sizes["batch"])])
        with_lengths, run = choose.random() < 0.5, choose.randint(1, sizes["words"])
        places = choose.randint(1, 3)

        def entered(make: Callable[..., Tensor], known: Any) -> Ragged:
            real_lengths = lengths if known is None else make("batch", dtype=torch.int64)  # noqa: B023
            return Ragged.from_padded(make("batch", "words", 2), real_lengths if with_lengths else None)  # noqa: B023

        def padded(make: Callable[..., Tensor], known: Any) -> Any:
            return entered(make, known).to_padded(words=make("words").shape[0])

        def runs(make: Callable[..., Tensor], known: Any) -> Any:
            return entered(make, known).runs(run)  # noqa: B023

        def neighbours(make: Callable[..., Tensor], known: Any) -> Any:
            starts = make("words", dtype=torch.int64)
            return add_neighbours(make(sizes["words"] + places, places, 3), make(3), starts)  # noqa: B023

        def make(*shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            return real(*shape, sizes=sizes, dtype=dtype)  # noqa: B023

        tokens = int(lengths.sum())
        assert by_rule(entered, sizes, {"any": tokens}) == shapes(entered(make, None))
        assert by_rule(padded, sizes, {"any": tokens}) == shapes(padded(make, None))
        phrases = int((lengths - run + 1).clamp(min=0).sum())
        assert by_rule(runs, sizes, {"any": phrases}) == shapes(runs(make, None))
        assert by_rule(neighbours, sizes, {}) == shapes(neighbours(make, None))


def test_the_chunk_walk():
    for choose in cases(7):
        tower = Tower(vector_width=3, filters=4, pool=2, hidden=2, chunk=choose.randint(1, 4))
        sizes = {"batch": choose.randint(1, 4), "words": choose.randint(2, 8)}

        def call(make: Callable[..., Tensor], _: Any) -> Any:
            return tower._walk(Ragged.from_padded(make("batch", "words", 2)))  # noqa: B023

        with torch.no_grad():
            expected = shapes(call(lambda *shape: real(*shape, sizes=sizes), None))  # noqa: B023
        assert by_rule(call, sizes, {}) == expected


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda make: torch.lstm(make("t", "b", 3), (make(1, "b", 2), make(1, "b", 2)), [make(8, 4), make(8, 2)], False, 1, 0.0, False, False, True), "Expected 4, got 3"),
        (lambda make: torch.lstm(make("b", "t", 4), (make(1, "t", 2), make(1, "b", 2)), [make(8, 4), make(8, 2)], False, 1, 0.0, False, False, True), "Expected hidden size"),
        (lambda make: torch.gru(make("b", 1, 4), make(1, "b", 3), [make(6, 4), make(6, 2)], False, 1, 0.0, False, False, True), "weights are for 2 units, not 3"),
        (lambda make: F.linear(make("b", 3), make(2, 4)), "reduction dim|cannot be multiplied"),
        (lambda make: F.linear(make("b", 4), make(2, 4), make(3)), "expand|broadcast|must match"),
        (lambda make: F.linear(make("b", 4, dtype=torch.float64), make(2, 4)), "must have the same dtype"),
        (lambda make: PhraseConv(4, 3, 2).project(make("b", 5)), "vectors of 5 numbers cannot be multiplied by weights for 4"),
        (lambda make: nn.RNN(4, 2)(make(0, "b", 4)), "larger than 0"),
        (lambda make: torch._pack_padded_sequence(make("b", "t", 4), make(3), True), "to be equal to batch_size"),
        (lambda make: torch._pack_padded_sequence(make(0, "t", 4), make(0), True), "empty batch"),
        (lambda make: F.max_pool1d(make("b", 3, 2), 5), "Invalid computed output size"),
        (lambda make: F.max_pool1d(make("b", 3, 9), 2, padding=2), "at most half of kernel size"),
        (lambda make: F.max_pool1d(make("b"), 2), "Expected 2D or 3D input"),
        (lambda make: make("b", 3).unfold(1, make("t").shape[0], 1), "maximum size for tensor"),
        (lambda make: torch.take_along_dim(make("b", 3), make("t", 2, dtype=torch.int64), 1), "must match"),
        (lambda make: F.affine_grid(make("b", 2, 2), [5, 1, 3, 3], align_corners=False), "2 x 3"),
        (lambda make: F.affine_grid(make("b", 2, 3), [4, 1, 3, 3], align_corners=False), "a batch of 4"),
    ],
)  # fmt: skip
def test_rules_refuse_what_the_operations_refuse(call: Callable[..., Any], match: str):
    with pytest.raises((RuntimeError, ValueError), match=match):
        by_rule(lambda make, _: call(make), {"b": 5, "t": 7}, {"longest": 1, "tokens": 1})


@pytest.mark.parametrize("size", range(1, 8))
def test_what_takes_a_size_for_a_number(size: int):
    for call in (
        lambda n: torch.linspace(0, 1, n),
        lambda n: torch.triu_indices(n, n),
        lambda n: torch.triu_indices(n, n, 1),
        lambda n: torch.tril_indices(n, n),
        lambda n: torch.tril_indices(n, n, -1),
    ):
        made = by_rule(lambda make, sizes, call=call: call(sizes["n"]), {"n": size}, {})
        assert made == tuple(call(size).shape)


def test_windows_and_diagonals_by_sizes_and_grids():
    for size, first, last in ((1, 4, 6), (3, 5, 3), (4, 6, 5)):
        sizes = {"n": size, "first": first, "last": last}
        for call in (
            lambda make, n: make("first", "last").T.unfold(1, n, n).transpose(0, 1).contiguous(),
            lambda make, n: torch.diag(make("first", "last"), n),
            lambda make, n: make("n", "first").take_along_dim(make("n", "last", dtype=torch.int64), 1),
            lambda make, n: make(1, "first").take_along_dim(make("last", "n", dtype=torch.int64), -1),
            lambda make, n: torch.diag(make("first", "first"), -n),
            lambda make, n: F.affine_grid(make("n", 2, 3), [n, 1, n + 1, 2], align_corners=False),
            lambda make, n: F.affine_grid(make("n", 3, 4), [n, 1, 3, 2 * n, 2], align_corners=True),
        ):
            expected = call(lambda *shape, **given: real(*shape, sizes=sizes, **given), size)  # noqa: B023
            found = by_rule(lambda make, axes, call=call: call(make, axes["n"]), sizes, {})
            assert found == tuple(expected.shape)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_loss(reduction: str):
    def call(make: Any, sizes: Any) -> Tensor:
        logits = make("time", "batch", 5)
        lengths = make("batch", dtype=torch.int64)
        return F.ctc_loss(logits, make("batch", 2, dtype=torch.int64), lengths, lengths, reduction=reduction)

    logits, lengths = torch.zeros(6, 3, 5).log_softmax(-1), torch.full((3,), 2)
    real = F.ctc_loss(logits, torch.ones(3, 2, dtype=torch.int64), 3 * lengths, lengths, reduction=reduction)
    assert by_rule(call, {"time": 6, "batch": 3}, {}) == tuple(real.shape)
