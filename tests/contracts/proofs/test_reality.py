"""The reality check: what symbols prove and real tensors refuse is never proven, and nothing is left changed by it."""

import functools
import itertools
import random
import re
import sys
import threading
import time
from enum import Enum
from typing import Any, Literal

import numpy
import pytest
import torch
from jaxtyping import Float, Float32, Float64, Int, Int32
from torch import Tensor, nn
from torch.nn import functional as F

from towers import TwoTowers
from towers.contracts import contract, verify
from towers.contracts.proofs.reality import MEASURED, RealityCheck


def module(forward: Any, **parts: Any) -> nn.Module:
    """A module with these parts whose forward is a contracted function of `self` and inputs."""
    kind = type("Made", (nn.Module,), {"forward": contract(forward)})
    made = kind()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


# What symbols alone prove, and real tensors refuse.


def viewed_lstm(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch*time 6"]:
    return self.lstm(x)[0].view(-1, 6)


def viewed_channels_last(self, x: Float[Tensor, "batch 3 high wide"]) -> Float[Tensor, "batch 4*high*wide"]:
    return self.conv(x.contiguous(memory_format=torch.channels_last)).view(len(x), -1)


def narrow_source(self, x: Float[Tensor, "rows 8"], ids: Int[Tensor, "rows"]) -> Float[Tensor, "rows 8"]:
    return x.index_add(0, ids, x[:, :4])


def entropy(self, x: Float[Tensor, "batch 5 high wide"], y: Int[Tensor, "batch high"]) -> Float[Tensor, ""]:
    return F.cross_entropy(x, y)


def autocast_inside(self, x: Float32[Tensor, "batch 8"]) -> Float32[Tensor, "batch 6"]:
    with torch.autocast("cpu", torch.bfloat16):
        return self.linear(x)


def double_norm(self, x: Float64[Tensor, "batch 8"]) -> Float64[Tensor, "batch 8"]:
    return self.norm(x)


def double_attention(self, x: Float64[Tensor, "batch time 8"]) -> Float64[Tensor, "batch time 8"]:
    return self.attention(x, x, x)[0]


def double_states(
    self, x: Float32[Tensor, "batch time 8"], h: Float64[Tensor, "1 batch 6"]
) -> Float[Tensor, "batch time 6"]:
    return self.gru(x, h)[0]


def loss_of_int32(self, x: Float[Tensor, "batch 5"], y: Int32[Tensor, "batch"]) -> Float[Tensor, ""]:
    return F.cross_entropy(x, y)


def one_hot_of_int32(self, y: Int32[Tensor, "batch"]) -> Int[Tensor, "batch 5"]:
    return F.one_hot(y, 5)


def activation_of_ints(self, x: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    return F.gelu(x)


def softmax_of_ints(self, x: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    return x.softmax(-1)


def written_expanded(self, x: Float[Tensor, "batch 1"], y: Float[Tensor, "time"]) -> Float[Tensor, "batch time"]:
    return x.expand(len(x), len(y)).add_(y)


def few_rows_for_all(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
    return x + self.table(torch.arange(x.shape[1]) + 40)


REFUSED = {
    "an LSTM's output is a transpose": (viewed_lstm, {"lstm": nn.LSTM(8, 6, batch_first=True)}),
    "channels last": (viewed_channels_last, {"conv": nn.Conv2d(3, 4, 3, padding=1)}),
    "index_add": (narrow_source, {}),
    "cross_entropy in 4 dimensions": (entropy, {}),
    "autocast": (autocast_inside, {"linear": nn.Linear(8, 6)}),
    "LayerNorm of float64": (double_norm, {"norm": nn.LayerNorm(8)}),
    "attention of float64": (double_attention, {"attention": nn.MultiheadAttention(8, 2, batch_first=True)}),
    "states of float64": (double_states, {"gru": nn.GRU(8, 6, batch_first=True)}),
    "a loss of int32": (loss_of_int32, {}),
    "one_hot of int32": (one_hot_of_int32, {}),
    "an activation of integers": (activation_of_ints, {}),
    "a softmax of integers": (softmax_of_ints, {}),
    "written where it is expanded": (written_expanded, {}),
    "no row for any position": (few_rows_for_all, {"table": nn.Embedding(16, 8)}),
}


@pytest.mark.parametrize(("forward", "parts"), REFUSED.values(), ids=REFUSED)
def test_what_real_tensors_refuse_is_not_proven(forward: Any, parts: dict[str, nn.Module]):
    proof = verify(module(forward, **parts), seconds=600)
    assert proof.verdict in ("failed", "holds if", "specialised"), str(proof)
    assert proof.tried > 0


def test_a_table_with_fewer_rows_than_words_is_a_condition_and_exact():
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x + self.table(torch.arange(x.shape[1]))

    made = module(forward, table=nn.Embedding(16, 8))
    proof = verify(made, seconds=600)
    assert (proof.verdict, proof.conditions) == ("holds if", ("time <= 16",)), str(proof)
    assert verify(made, where=proof.conditions)
    made(torch.zeros(2, 16, 8))
    with pytest.raises(IndexError):
        made(torch.zeros(2, 17, 8))


def test_a_failure_that_only_a_later_call_has_is_one_of_the_module():
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        self.calls.append(int(x.numel()))
        return x if self.calls[0] == self.calls[-1] or sum(self.calls) < 500 else x[:, 1:]

    made = module(forward)
    made.calls = []
    assert verify(made).verdict == "failed"
    assert made.calls == []


def test_a_call_that_fails_after_others_is_not_taken_for_one_of_wrong_values():
    def forward(self, x: Float[Tensor, "time time"]) -> Float[Tensor, "time time"]:
        half = len(x) // 2
        if half not in self.masks:
            self.masks[half] = torch.ones(len(x), len(x)).tril()
        return x * self.masks[half]

    made = module(forward)
    made.masks = {}
    proof = verify(made)
    assert proof.verdict == "failed", str(proof)
    assert made.masks == {}


def test_a_call_that_fails_only_after_larger_ones_is_found():
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        if x.shape[1] not in self.sums:
            self.sums[x.shape[1]] = torch.zeros_like(x)
        return x + self.sums[x.shape[1]]

    made = module(forward)
    made.sums = {}
    proof = verify(made)
    assert proof.verdict == "failed"
    assert "only after calls of other sizes" in proof.message
    assert not any("needs values" in remark for remark in proof.remarks)


@pytest.mark.parametrize("on", [True, False])
def test_gradients_are_on_and_off(on: bool):
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        return x[:, 1:] if torch.is_grad_enabled() is on else x

    with torch.set_grad_enabled(not on):
        proof = verify(module(forward))
    assert proof.verdict == "failed"
    assert proof.message.startswith(f"with gradients {'on' if on else 'off'}: Made.forward: the result: time is 0")


def test_what_computes_gradients_itself_needs_them():
    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 8"]:
        x = x.requires_grad_()
        if type(x) is Tensor:
            torch.autograd.grad(x.square().sum(), x)
        return x

    proof = verify(module(forward))
    assert proof
    assert any(each.startswith("not with gradients off: RuntimeError: element 0") for each in proof.remarks)


def test_every_real_run_is_counted():
    turns = itertools.count()  # which verify cannot put back

    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        if type(x) is Tensor:
            next(turns)
        return self.linear(x)

    proof = verify(module(forward, linear=nn.Linear(8, 8)))
    assert proof
    assert next(turns) == proof.tried


# Conditions: exact, or none.


def first_of_four(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 4 8"]:
    return x.split(4, 1)[0]


def second_of_two(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 2 8"]:
    return torch.split(x, 2, dim=1)[1]


def masked(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time time"]:
    time = x.shape[1]
    return (x @ x.mT).masked_fill(torch.ones(16, 16, dtype=torch.bool)[:time, :time], 0.0)


def windows(self, x: Float[Tensor, "b h w"]) -> Float[Tensor, "b h//4*(w//4) 16"]:
    b, h, w = x.shape
    return x.view(b, h // 4, 4, w // 4, 4).transpose(2, 3).reshape(b, -1, 16)


def flattened(self, x: Float[Tensor, "batch 4 time"]) -> Float[Tensor, "batch 5"]:
    return self.linear(self.conv(x).flatten(1))


def square(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "time batch 8"]:
    return x


EXACT = {
    "split": (first_of_four, {}, "time >= 4"),
    "the second piece": (second_of_two, {}, "time >= 4"),
    "a mask": (masked, {}, "time <= 16"),
    "windows": (windows, {}, "h % 4 == 0 and w % 4 == 0"),
    "flattened": (flattened, {"conv": nn.Conv1d(4, 2, 3, stride=2), "linear": nn.Linear(18, 5)}, "19 <= time <= 20"),
    "a square": (square, {}, "batch == time"),
}


@pytest.mark.parametrize(("forward", "parts", "condition"), EXACT.values(), ids=EXACT)
def test_conditions_are_exact(forward: Any, parts: dict[str, nn.Module], condition: str):
    made = module(forward, **parts)
    proof = verify(made, seconds=600)
    assert proof.verdict == "holds if", str(proof)
    axes = [name for name in proof.axes if not name.isdigit()]
    for sizes in itertools.product(range(1, 25, 1 if len(axes) < 3 else 3), repeat=len(axes)):
        named = dict(zip(axes, sizes, strict=True))
        assert all(eval(text, {}, named) for text in proof.conditions) == eval(condition, {}, named), proof.conditions
    if proof.conditions != ("batch == time",):
        assert verify(made, where=proof.conditions, seconds=600)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b: a == b,
        lambda a, b: 7 * a + b == 37,
        lambda a, b: a * b > 4000,
        lambda a, b: (a + b) % 7 == 3,
    ],
    ids=["equal", "a line", "a product", "a sum"],
)
def test_a_guard_on_two_axes_is_never_a_list_of_samples(wrong: Any):
    def forward(self, x: Float[Tensor, "a b"]) -> Float[Tensor, "a b"]:
        return x[1:] if wrong(*x.shape) else x

    proof = verify(module(forward), seconds=600)
    if proof.verdict in ("failed", "not provable"):
        assert proof.conditions == ()
        return
    assert proof.verdict == "holds if", str(proof)
    for a, b in itertools.product((*range(1, 40), 63, 64, 1000, 4000, 4001), repeat=2):
        assert all(eval(text, {}, {"a": a, "b": b}) for text in proof.conditions) is not wrong(a, b), proof.conditions


class Places(nn.Module):
    """Each word, or each `stride` words, has its place in a table, which symbols do not see."""

    def __init__(self, rows: int, stride: int = 1, others: int = 0):
        super().__init__()
        self.table, self.stride = nn.Embedding(rows, 1), stride
        self.others = nn.ParameterList(torch.zeros(size) for size in range(2, 2 + others))

    @contract
    def forward(self, x: Float[Tensor, "time 1"]) -> Float[Tensor, "time 1"]:
        places = self.table(torch.arange((x.shape[0] + self.stride - 1) // self.stride))
        return x + places.sum(0)


class Helped(nn.Module):
    def counted(self, count: int) -> Tensor:
        return torch.zeros(3000).index_add(0, torch.arange(count), torch.ones(count))

    @contract
    def forward(self, x: Float[Tensor, "time"]) -> Float[Tensor, "time"]:
        return x + self.counted(x.shape[0]).sum()


@pytest.mark.parametrize(
    ("made", "most"),
    [
        (lambda: Places(8192), 8192),
        (lambda: Places(40_000), 40_000),
        (lambda: Places(3000, others=40), 3000),
        (lambda: Places(1500, stride=2), 3000),
        (lambda: Places(300, stride=8), 2400),
        (Helped, 3000),
    ],
    ids=["large", "larger", "beside many other sizes", "behind a stride", "behind a long stride", "in another method"],
)
def test_tables_that_only_long_inputs_leave_are_found(made: Any, most: int):
    proof = verify(made())
    assert (proof.verdict, proof.conditions) == ("holds if", (f"time <= {most}",))


def test_what_compares_all_with_all_is_not_run_at_sizes_far_away(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    def timed(self: RealityCheck, case: Any, sizes: dict[str, int], *how: Any) -> Any:
        seen.append(sizes["time"])
        return run(self, case, sizes, *how)

    def forward(self, x: Float[Tensor, "time 2"]) -> Float[Tensor, "time time"]:
        return x @ x.T

    run = RealityCheck._timed
    monkeypatch.setattr(RealityCheck, "_timed", timed)
    assert verify(module(forward, table=nn.Embedding(60_000, 1)))
    assert MEASURED in seen
    assert max(seen) < 60_000


# Values.


def test_values_that_a_module_needs_are_a_remark_and_can_be_given():
    def forward(self, x: Float[Tensor, "batch time 8"], ids: Int[Tensor, "batch"]) -> Float[Tensor, "batch 8"]:
        if not bool((ids > 0).all()):
            raise ValueError("ids begin at 1")
        return x.sum(1) * ids.unsqueeze(1)

    needed = "needs values that fit: ValueError: ids begin at 1"
    proof = verify(module(forward))
    assert (proof.verdict, proof.remarks) == ("proven", (needed,))
    given = verify(module(forward), values={"ids": lambda shape: torch.full(shape, 7)})
    assert (given.verdict, given.remarks) == ("proven", (needed,))


def refuses_all(self, ids: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
    if (ids < 100).any():
        raise KeyError("reserved")
    return ids


def refuses_what_no_run_meets(self, ids: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
    if not (ids < 1 << 30).all():
        raise OverflowError("too large")
    return ids


def test_a_refusal_that_no_value_of_the_runs_meets_is_named_too():
    given = verify(module(refuses_all), values={"ids": lambda shape: torch.randint(100, 1000, shape)})
    assert (given.verdict, given.remarks) == ("proven", ("needs values that fit: KeyError: 'reserved'",))
    assert verify(module(refuses_all)).verdict == "failed"  # every kind of values is refused
    proof = verify(module(refuses_what_no_run_meets))
    assert (proof.verdict, proof.remarks) == ("proven", ("needs values that fit: OverflowError: too large",))


def fails_in_an_operation(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    return torch.stack([x, x[1:]])[0] if (x > 1e6).all() else x


def fails_in_a_layer(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    if (x > 1e6).all():
        self.lstm(x.unsqueeze(2))
    return x


def tells_of_a_failed_operation(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    if (x > 1e6).all():
        try:
            return torch.stack([x, x[1:]])[0]
        except RuntimeError as error:
            raise ValueError("no") from error
    return x


def looks_a_size_up(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    return x[{1: 0}[x.shape[0]] :] if (x > 1e6).all() else x


def has_another_shape(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    return x[1:] if (x > 1e6).all() else x


@pytest.mark.parametrize(
    "forward",
    [fails_in_an_operation, fails_in_a_layer, tells_of_a_failed_operation, looks_a_size_up, has_another_shape],
)
def test_what_fails_for_some_values_is_no_refusal(forward: Any):
    proof = verify(module(forward, lstm=nn.LSTM(3, 4)))
    assert proof.verdict == "not provable"
    assert proof.message.startswith("for some values: ")


def test_no_values_that_pass_are_a_failure():
    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 8"]:
        torch.linalg.cholesky(x[:1].T @ x[:1] - 9 * torch.eye(8))
        return x

    proof = verify(module(forward))
    assert proof.verdict == "failed"
    assert "LinAlgError" in proof.message


def test_conditions_on_values_are_kept():
    @contract(where="1 <= lengths <= time")
    def forward(self, x: Float[Tensor, "batch time 8"], lengths: Int[Tensor, "batch"]) -> Float[Tensor, "batch 8"]:
        assert int(lengths.min()) >= 1
        assert int(lengths.max()) <= x.shape[1]
        return x[:, 0]

    kind = type("Made", (nn.Module,), {"forward": forward})
    assert verify(kind()).verdict != "failed"


# Dtypes.


def test_a_dtype_that_fails_is_a_remark():
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        return torch.fft.ifft(torch.fft.fft(x)).real

    proof = verify(module(forward))
    assert proof
    assert any(remark.startswith("not in bfloat16: ") for remark in proof.remarks)
    assert any("not in bfloat16" in line for line in str(proof).splitlines())


# What is left as it was.


def test_nothing_is_changed_by_it():
    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 6"]:
        print("hello from inside")
        random.random(), numpy.random.rand(), torch.rand(3)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        result = self.linear(x)
        torch.set_default_dtype(torch.float32)
        return result

    made = module(forward, linear=nn.Linear(8, 6))
    made.linear.weight.grad = torch.ones(6, 8)
    before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert verify(made)
    assert (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(made.linear.weight.grad, torch.ones(6, 8))


def test_what_the_module_prints_is_dropped_and_what_others_print_is_not(capsys: pytest.CaptureFixture[str]):
    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 8"]:
        print("inside")
        thread = threading.Thread(target=print, args=("another thread",))
        thread.start()
        thread.join()
        return x

    before = sys.stdout
    assert verify(module(forward))
    assert sys.stdout is before
    out = capsys.readouterr().out
    assert "inside" not in out
    assert "another thread" in out


TABLE: dict[str, Tensor] = {}
LIST: list[Tensor] = []
LAST: Any = None


@functools.lru_cache
def ones_for(dtype: torch.dtype) -> Tensor:
    return torch.ones(8, dtype=dtype)


class Caching(nn.Module):
    last: Any = None

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        global LAST
        if "ones" not in TABLE:
            TABLE["ones"] = torch.ones(8)
        LIST.append(x)
        LAST = Caching.last = x
        return x * TABLE["ones"] * ones_for(x.dtype)


def test_no_fake_tensor_stays_in_a_cache_outside_of_the_copy():
    ones_for.cache_clear()
    kept = TABLE["kept"] = torch.ones(1)
    proof = verify(Caching())
    assert proof.verdict == "proven", str(proof)
    assert type(ones_for(torch.float32)) is Tensor
    assert TABLE["kept"] is kept
    for value in (*TABLE.values(), *LIST, LAST, Caching.last):
        assert value is None or type(value) is Tensor
    assert type(Caching()(torch.zeros(2, 3, 8))) is Tensor


# What is not run, and how long it takes.


def test_a_large_module_is_not_run():
    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 8"]:
        return x

    made = module(forward)
    made.register_buffer("large", torch.zeros(1, dtype=torch.int8).expand(2**31))
    proof = verify(made)
    assert proof
    assert (proof.tried, proof.untried) == (0, "its parameters and buffers take more than 1 GB")


def test_a_slow_module_is_tried_at_fewer_sizes_and_says_so():
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        if not torch.compiler.is_compiling() and type(x) is Tensor:
            time.sleep(0.05)
        return x

    proof = verify(module(forward))
    assert proof
    assert 8 <= proof.tried < 100
    assert proof.untried is not None
    sizes, planned = map(int, re.findall(r"tried at (\d+) of (\d+) sizes", proof.untried)[0])
    assert 8 <= sizes <= proof.tried
    assert sizes < planned


@pytest.mark.parametrize("where", ["symbols", "values"])
def test_no_loop_outlasts_the_limit_in_any_thread(where: str):
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        while (type(x) is not Tensor) == (where == "symbols"):
            pass
        return x

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(verify(module(forward), seconds=1.0)))
    thread.start()
    thread.join(60)
    [proof] = found
    if where == "symbols":
        assert proof.verdict == "not provable"
        assert "time limit" in proof.message
    else:
        assert proof.verdict == "proven"
        assert proof.untried == "a real run took longer than the time limit"


# Other threads.


def test_other_threads_get_their_usual_results_meanwhile():
    torch.manual_seed(0)
    model, left, right = TwoTowers(), torch.randn(3, 7, 300), torch.randn(3, 5, 300)
    expected = model(left, right)
    stop, wrong, calls = threading.Event(), [], [0]

    def call() -> None:
        while not stop.is_set():
            try:
                result = model(left, right)
                calls[0] += 1
                if type(result) is not Tensor or not torch.allclose(result, expected, atol=1e-5):
                    wrong.append(result)
            except Exception as error:
                wrong.append(error)
            stop.wait(0.002)  # leaves the processor to the proofs

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    proofs = [verify(TwoTowers(), seconds=20) for _ in range(2)]
    stop.set()
    for thread in threads:
        thread.join()
    assert all(proofs)
    assert not wrong
    assert calls[0] > 10


# The ways to call it.


def test_every_member_of_a_union_is_made():
    def forward(self, x: Float[Tensor, "batch 8"] | Int[Tensor, "batch time"]) -> Float[Tensor, "batch 8"]:
        return x * 1.0

    proof = verify(module(forward))
    assert (proof.verdict, proof.conditions) == ("specialised", ("time == 8",)), str(proof)
    assert 'x as Int["batch time"]' in proof.headline()


class How(Enum):
    SUM = 1
    MEAN = 2


def test_every_value_of_an_option_is_run():
    def forward(
        self,
        x: Float[Tensor, "batch time 8"],
        flip: bool = False,
        kind: Literal["same", "other"] = "same",
        how: How = How.SUM,
        count: int | None = 3,
        name: str = "usual",
    ) -> Float[Tensor, "batch time 8"]:
        wrong = {"flip": flip, "kind": kind == "other", "how": how is How.MEAN, "count": count is None}[self.wrong]
        return x[:, 1:] if wrong else x

    for wrong in ("flip", "kind", "how", "count"):
        made = module(forward)
        made.wrong = wrong
        proof = verify(made)
        assert proof.verdict == "failed"
        assert f"{wrong}=" in proof.worst.label
    assert "flip is False or True" in proof.assumptions
    assert "name is 'usual'" in proof.assumptions


def test_an_option_beside_an_optional_tensor():
    def forward(
        self, x: Float[Tensor, "batch time"], scale: Float[Tensor, "batch"] | None = None, scaled: bool = False
    ) -> Float[Tensor, "batch time"]:
        return x if scale is None or not scaled else x * scale

    proof = verify(module(forward))
    assert proof.verdict == "holds if", str(proof)
    assert "with scale, scaled=True" in str(proof)
    assert not proof.untried


@pytest.mark.parametrize(
    ("wrong", "label"),
    [
        (lambda x, y, flip: flip and not x.is_floating_point(), 'x as Int["batch time"], flip=True'),
        (
            lambda x, y, flip: not (x.is_floating_point() or y.is_floating_point()),
            'x as Int["batch time"], y as Int["batch"]',
        ),
    ],
    ids=["an option", "another member"],
)
def test_members_of_a_union_beside_other_choices(wrong: Any, label: str):
    def forward(
        self,
        x: Float[Tensor, "batch time"] | Int[Tensor, "batch time"],
        y: Float[Tensor, "batch"] | Int[Tensor, "batch"],
        flip: bool = False,
    ) -> Float[Tensor, "batch time"]:
        return x.float()[:, 1:] if wrong(x, y, flip) else x.float()

    proof = verify(module(forward))
    assert (proof.verdict, proof.worst.label) == ("failed", label)


def test_three_options_together():
    def forward(
        self, x: Float[Tensor, "batch 8"], a: bool = False, b: bool = True, c: Literal["u", "v"] = "u"
    ) -> Float[Tensor, "batch 8"]:
        return x[1:] if a and not b and c == "v" else x

    proof = verify(module(forward))
    assert proof.verdict == "failed"
    assert proof.worst.label == "a=True, b=False, c='v'"
    assert not any("combinations" in text for text in proof.assumptions)


def test_that_not_all_combinations_of_options_were_run_is_told():
    def forward(
        self,
        x: Float[Tensor, "batch"],
        a: bool = False,
        b: bool = False,
        c: bool = False,
        d: bool = False,
        e: bool = False,
    ) -> Float[Tensor, "batch"]:
        return x

    assert any(text.startswith("of all combinations") for text in verify(module(forward)).assumptions)


def test_assumptions_are_told():
    def forward(self, x: Float[Tensor, "batch 8"], flip: bool = False) -> Float[Tensor, "batch 8"]:
        return x

    proof = verify(module(forward).eval())
    assert "inputs are float32" in proof.assumptions
    assert "inputs are contiguous and on the CPU" in proof.assumptions
    assert "the module is in eval mode" in proof.assumptions
    assert proof.to_json()["tried"] == proof.tried


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(9, 3))

    def forward(self, ids: Int[Tensor, "batch"], x: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3"]:
        return x + self.table[ids]


def test_a_contract_that_only_real_runs_break_is_not_called_proven():
    proof = verify(Table(), values={"ids": lambda shape: torch.full(shape, 9)})
    assert [one.verdict for one in proof.contracts] == [proof.verdict] == ["failed"]
    assert verify(Table(), values={"ids": lambda shape: torch.full(shape, 8)}).verdict == "proven"


def test_values_of_an_argument_that_is_none():
    with pytest.raises(ValueError, match="values: id is none of ids, x"):
        verify(Table(), values={"id": lambda shape: torch.zeros(shape)})


class CausalPast(nn.Module):
    """Words attend to themselves and to those before them, by a mask of a fixed size."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(16, 16, dtype=torch.bool).tril())

    def forward(
        self, query: Float[Tensor, "batch time 4"], keys: Float[Tensor, "batch total 4"]
    ) -> Float[Tensor, "batch time total"]:
        time, total = query.shape[1], keys.shape[1]
        return (query @ keys.mT).masked_fill(~self.mask[total - time : total, :total], -1e9)


def test_a_number_of_a_message_that_where_excludes_is_no_error():
    assert verify(CausalPast(), where="time <= total", seconds=600).conditions == ("total <= 16",)


class Broken(nn.Module):
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        return x + x[:, 1:]


def test_a_contract_whose_code_raises_is_not_called_proven():
    assert [one.verdict for one in verify(Broken()).contracts] == ["specialised"]
