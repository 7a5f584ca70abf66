"""The one call of C for a plain layer without gradients: the bits of the general way, for every input and every state."""

from typing import Any

import pytest
import torch
from torch import Tensor

from towers import Ragged, RaggedLSTM
from towers.contracts import checks
from towers.kernels import cpu
from towers.kernels.cpu import layer_call
from towers.layers import lstm as lstm_file

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=str(cpu.why_not()))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call of C that is made, whether it gave a result."""
    found, run = list[bool](), layer_call.run

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = run(*args, **kwargs)
        found.append(result is not None)
        return result

    monkeypatch.setattr(layer_call, "run", watched)
    return found


def general(lstm: RaggedLSTM, *args: Any, **kwargs: Any) -> list[Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lstm_file, "run_plain", lambda *_, **__: None)
        return flat(lstm(*args, **kwargs))


def flat(result: Any) -> list[Tensor]:
    output, (h_n, c_n) = result
    return [output.values if isinstance(output, Ragged) else output, h_n, c_n]


def states(rows: int, count: int, hidden: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, count, hidden, dtype=dtype), torch.randn(rows, count, hidden, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("bias", [True, "single", False])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one direction", "both"])
@torch.no_grad()
def test_it_gives_the_bits_of_the_general_way(bidirectional, bias, dtype, taken):
    for hidden, count, steps in ((6, 1, 7), (3, 5, 4), (20, 40, 3), (33, 2, 1), (6, 0, 7), (6, 3, 0)):
        lstm = RaggedLSTM(5, hidden, bias=bias, bidirectional=bidirectional, dtype=dtype)
        for parameter in lstm.parameters():
            parameter.normal_()
        x, hx = torch.randn(count, steps, 5, dtype=dtype), states(1 + bidirectional, count, hidden, dtype)
        lengths = torch.randint(0, steps + 1, (count,), dtype=torch.int32)
        x[torch.arange(steps) >= lengths.unsqueeze(1)] = torch.nan
        whole, offsets = x.nan_to_num(1), torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        ends = Ragged(torch.randn(int(offsets[-1]), 5, dtype=dtype), offsets)
        for args, how in (
            ((whole,), {}), ((whole, hx), {}), ((x, None), {"lengths": lengths}), ((x, list(hx)), {"lengths": lengths}),
            ((ends,), {}), ((ends, hx), {}), ((Ragged.from_padded(whole),), {}), ((whole.transpose(1, 2).contiguous().mT,), {}),
        ):  # fmt: skip
            wanted, before = general(lstm, *args, **how), len(taken)
            output, (h_n, c_n) = lstm(*args, **how)
            torch.testing.assert_close(flat((output, (h_n, c_n))), wanted, rtol=0, atol=0)
            assert torch.equal(lstm.last(*args, **how), wanted[1])
            assert taken[before:] == [True, True]
            assert h_n.data_ptr() != hx[0].data_ptr() or not count  # they may be changed in place
            assert h_n._base is None


@torch.no_grad()
def test_every_order_of_axes_takes_it(taken):
    lstm, first = RaggedLSTM(5, 6), RaggedLSTM(5, 6, batch_first=False)
    first.load_state_dict(lstm.state_dict())
    x = torch.randn(3, 4, 5)
    wanted, _ = lstm(x)
    assert torch.equal(first(x.transpose(0, 1))[0], wanted.transpose(0, 1))
    assert torch.equal(lstm(x[1])[0], wanted[1])
    assert torch.equal(lstm.last(x[1], lengths=torch.tensor(2)), lstm.last(x[1, :2]))
    assert taken == [True] * 5


@torch.no_grad()
def test_nothing_but_where_weights_lie_is_remembered(taken):
    lstm, x = RaggedLSTM(5, 6, bidirectional=True), torch.randn(1, 4, 5)
    for change in (
        lambda: lstm.weight_hh_l0.mul_(2),
        lambda: lstm.weight_hh_l0.data.mul_(2),
        lambda: setattr(lstm.bias_ih_l0, "data", torch.randn(24)),
        lambda: lstm.weight_hh_l0_reverse.data.mul_(2),
        lambda: setattr(lstm, "weight_ih_l0", torch.nn.Parameter(torch.randn(24, 5))),
        lambda: lstm.double(),
    ):
        before = lstm(x)[0]
        change()
        x = x.to(lstm.weight_ih_l0.dtype)
        found = lstm(x)
        torch.testing.assert_close(flat(found), general(lstm, x), rtol=0, atol=0)
        assert not torch.equal(found[0], before)
    assert all(taken)
    lstm.bias_hh_l0 = None
    with pytest.raises(ValueError, match="bias_hh_l0 is None"):
        lstm(x)


def test_other_calls_do_not_take_it(taken):
    x = torch.randn(2, 4, 5)
    RaggedLSTM(5, 6)(x)  # gradients
    with torch.no_grad():
        for lstm in (
            RaggedLSTM(5, 6, num_layers=2), RaggedLSTM(5, 6, proj_size=2),
            RaggedLSTM(5, 6, recurrent_activation="hard_sigmoid"), RaggedLSTM(5, 6).to(torch.bfloat16),
        ):  # fmt: skip
            lstm(x.to(lstm.weight_ih_l0.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            RaggedLSTM(5, 6)(x)
        torch.func.vmap(RaggedLSTM(5, 6))(x.unsqueeze(0))
        frozen = RaggedLSTM(5, 6)
    frozen.requires_grad_(False)(x.requires_grad_())[0].sum().backward()
    assert x.grad is not None
    assert not any(taken)


@torch.no_grad()
def test_wrong_lengths_and_offsets_are_seen_in_c(taken):
    lstm, x = RaggedLSTM(5, 6), torch.randn(3, 4, 5)
    with checks("off"):
        for lengths in ([4, 5, 0], [4, -1, 2], [2**62, 0, 0]):
            given = torch.tensor(lengths)
            torch.testing.assert_close(lstm(x, lengths=given), lstm(x, lengths=given.clamp(0, 4)))
        for offsets in ([0, 5, 13], [0, 7, 6, 12], [0, -(2**63), 12]):
            with pytest.raises(IndexError, match="lies outside of its 12 rows"):
                lstm(Ragged.unchecked(x.flatten(0, 1), torch.tensor(offsets)))
        for hx in ((torch.zeros(1, 2, 6), torch.zeros(1, 3, 6)), (torch.zeros(1, 3, 6), torch.zeros(1, 3, 5))):
            with pytest.raises(TypeError, match=r"hx\[\d\] is"):
                lstm(x, hx)
        x.untyped_storage().resize_(8)
        with pytest.raises(RuntimeError, match="its storage holds 8"):
            lstm(x)
    assert taken == [False, True] * 3 + [False] * 5


def test_a_layer_unpickled_from_a_release_without_the_memory_runs():
    lstm, input = RaggedLSTM(3, 4), torch.randn(2, 5, 3)
    with torch.no_grad():
        wanted = lstm(input)[0]
        del lstm.accepted
        torch.testing.assert_close(lstm(input)[0], wanted, rtol=0, atol=0)
