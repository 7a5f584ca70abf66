"""The C code beside nn.LSTM, sentence by sentence; what it refuses; and what happens where it is absent."""

import ctypes
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

from towers import Ragged, RaggedLSTM, ShapeContractError, Tower
from towers.kernels import cpu
from towers.kernels.cpu import built, library

from ..helpers.native import loaded_anew

needs_compiler = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")
SIZES = st.sampled_from([1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 33, 40])


def one_by_one(lstm: nn.LSTM, sentences: list[Tensor], state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Output of all words, h_n and c_n: nn.LSTM over one sentence at a time."""
    outputs, hs, cs = [], [], []
    for number, words in enumerate(sentences):
        h, c = (part[:, number] for part in state)
        if len(words):
            output, (h, c) = lstm(words, (h, c))
            outputs.append(output)
        hs.append(h)
        cs.append(c)
    width = lstm.hidden_size * (1 + lstm.bidirectional)
    output = torch.cat(outputs) if outputs else state[0].new_zeros(0, width)
    return output, torch.stack(hs, 1), torch.stack(cs, 1)


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(
    inputs=SIZES,
    hidden=SIZES,
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=60),
    bidirectional=st.booleans(),
    double=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 1000),
)
def test_each_sentence_as_nn_lstm_has_it_and_so_the_gradients(
    inputs: int, hidden: int, lengths: list[int], bidirectional: bool, double: bool, threads: int, seed: int
):
    torch.manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    theirs = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=bidirectional).double()
    ours = RaggedLSTM.from_torch(theirs).to(dtype)
    rows, count = 1 + bidirectional, len(lengths)
    values = torch.randn(sum(lengths), inputs, dtype=torch.float64)
    starts = [torch.randn(rows, count, hidden, dtype=torch.float64) for _ in range(2)]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    found: list[list[Tensor]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for lstm, precise in ((theirs, torch.float64), (ours, dtype)):
            x, h, c = (part.to(precise).clone().requires_grad_() for part in (values, *starts))
            if lstm is theirs:
                output, h_n, c_n = one_by_one(theirs, list(x.split(lengths)), (h, c))
            else:
                ragged, (h_n, c_n) = ours(Ragged(x, offsets), (h, c))
                output = ragged.values
            results = [output, h_n, c_n]
            total = sum(
                (part * torch.linspace(-1, 1, part.numel(), dtype=precise).view_as(part)).sum() for part in results
            )
            gradients = torch.autograd.grad(total, [x, h, c, *lstm.parameters()], materialize_grads=True)
            found.append([part.detach() for part in (*results, *gradients)])
    finally:
        torch.set_num_threads(before)
    for place, (wanted, got) in enumerate(zip(*found, strict=True)):
        allowed = (1e-12 if double else 1e-6) if place < 3 else (1e-11 if double else 1e-5)
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        distance = float((wanted - got).abs().max()) if wanted.numel() else 0.0
        assert distance <= allowed * max(1.0, largest)


@needs_compiler
def test_a_sentence_has_the_same_bits_whatever_stands_beside_it():
    lstm = RaggedLSTM(9, 20, bidirectional=True)
    lengths = torch.randint(0, 30, (70,), generator=torch.Generator().manual_seed(0)).tolist()
    sentences = [torch.randn(length, 9) for length in lengths]
    with torch.no_grad():
        together, (h_n, c_n) = lstm(Ragged.from_list(sentences))
        for number, words in enumerate(sentences):
            alone, (h, c) = lstm(Ragged.from_list([words]))
            assert torch.equal(alone.values, together.to_list()[number])
            assert torch.equal(h[:, 0], h_n[:, number])
            assert torch.equal(c[:, 0], c_n[:, number])


@needs_compiler
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_own_sentence_and_is_not_hidden(bad: float):
    lstm = RaggedLSTM(8, 6)
    x, lengths = torch.randn(40, 7, 8), torch.arange(40) % 8
    broken = x.clone()
    broken[15, 2, 3] = bad
    with torch.no_grad():
        whole, found = (lstm.last(batch, lengths=lengths)[0] for batch in (x, broken))
    others = torch.arange(40) != 15
    assert torch.equal(whole[others], found[others])
    assert found[15].isnan().all() == (bad != bad)


def float32_error(lstm: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    """How far float32 may be from float64, for h of each word: the roundings of a step, and what the steps before missed.

    A gate sums 8 products and 2 biases, in at most 10 roundings of at most the sum of what they are without signs.
    A sigmoid or tanh misses by its slope times that, by its steepest within reach of it, and by 4 roundings of its own.
    """
    weight, recurrent, *biases = (parameter.abs() for parameter in lstm.parameters())
    rounding = torch.finfo(torch.float32).eps
    h, _ = lstm(x)
    before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
    gates = (x @ lstm.weight_ih_l0.T + before @ lstm.weight_hh_l0.T + lstm.bias_ih_l0 + lstm.bias_hh_l0).unbind(1)
    sums = (x.abs() @ weight.T + before.abs() @ recurrent.T + sum(biases)).unbind(1)
    c = missed_c = missed_h = torch.zeros_like(h[:, 0])
    bounds = []
    for gate, largest in zip(gates, sums, strict=True):
        missed = 10 * rounding * largest + missed_h @ recurrent.T
        i, f, g, _ = gate.chunk(4, 1)
        flattest = (gate.abs() - missed).clamp(min=0)  # the point within reach at which the slope is steepest
        slope = torch.sigmoid(flattest) * torch.sigmoid(-flattest)
        slope_g = 1 - flattest.chunk(4, 1)[2].tanh().square()
        missed_i, missed_f, _, missed_o = (slope * missed + 4 * rounding).chunk(4, 1)
        missed_g = slope_g * missed.chunk(4, 1)[2] + 4 * rounding
        missed_c = missed_c + c.abs() * missed_f + missed_i + missed_g + 3 * rounding * (c.abs() + 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        missed_h = missed_c + missed_o + 5 * rounding
        bounds.append(missed_h)
    return torch.stack(bounds, 1)


@needs_compiler
def test_large_gates_neither_overflow_nor_lose_the_small_ones():
    """Against float64: gates beyond where exp overflows, and so small that 1 - x would lose them."""
    for scale in (1e-6, 1e-3, 1.0, 30.0, 1e4):
        theirs = nn.LSTM(4, 4, batch_first=True)
        x = torch.randn(3, 5, 4) * scale
        with torch.no_grad():
            ours = RaggedLSTM.from_torch(theirs)
            wanted, found = theirs.double()(x.double())[0], ours(x)[0]
            bound = 1e-6 if scale <= 1 else float32_error(theirs, x.double())
            assert ((wanted - found).abs() <= bound).all()
    zero = RaggedLSTM(1, 1, bias=False)
    with torch.no_grad():
        for weight in zero.parameters():
            weight.fill_(1.0)
        tiny = zero(torch.tensor([[[1e-12]]]))[0].item()
    assert tiny == pytest.approx(0.25e-12, rel=1e-5)  # o * tanh(i * tanh(x)): a half of a half


@needs_compiler
def test_sentences_outside_of_the_rows_are_refused():
    lstm = RaggedLSTM(3, 5)
    for offsets in ([0, 2, 9], [0, 3, 1], [-1, 2, 4]):
        with pytest.raises(IndexError, match="a sentence of the batch lies outside of its 4 rows"):
            lstm(Ragged.unchecked(torch.randn(4, 3), torch.tensor(offsets)))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("name", "shape"), [("weight_hh_l0", (20, 4)), ("bias_hh_l0", (19,)), ("bias_ih_l0", (1,))])
def test_weights_of_other_sizes_are_refused(name, shape):
    lstm = RaggedLSTM(3, 5)
    setattr(lstm, name, nn.Parameter(torch.zeros(shape)))
    with pytest.raises(RuntimeError, match=r"x, h_0, c_0, weight_ih, weight_hh, bias, bias are .* they do not fit"):
        lstm(torch.randn(2, 4, 3))


@pytest.fixture
def anew() -> Iterator[pytest.MonkeyPatch]:
    """As in a process that has not asked for C code yet."""
    with loaded_anew() as patch:
        yield patch


@pytest.fixture
def left_out(anew: pytest.MonkeyPatch, tmp_path) -> Path:
    """As if no library were there; the file of the build's report."""
    anew.setattr(library, "LIBRARY", tmp_path / "native.so")
    anew.setattr(library, "REPORT", tmp_path / "native.txt")
    return tmp_path / "native.txt"


SLOWER = "torch's own operations are used, which give the same results more slowly. Remedy: "


def test_without_the_library_torch_runs_and_says_so_once(left_out: Path):
    left_out.write_text("left out: no C compiler was found (CC, cc or gcc or clang)\n")
    theirs = nn.LSTM(4, 7, batch_first=True)
    ours, x = RaggedLSTM.from_torch(theirs), torch.randn(3, 5, 4)
    reason = "the C code was left out: no C compiler was found (CC, cc or gcc or clang)"
    with torch.no_grad(), warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        torch.testing.assert_close(ours(x)[0], theirs(x)[0])
        assert Tower(vector_width=20)(torch.randn(3, 5, 20)).shape == (3, 6)
        assert str(ours.backend(x)) == f"torch: {reason}"
    (one,) = [str(warning.message) for warning in noted]
    assert one == f"{reason}: {SLOWER}install a C compiler, and then towers again; or set TOWERS_NATIVE=off to be content with it"  # fmt: skip


def test_a_checkout_that_was_never_built_names_the_command(left_out: Path):
    with pytest.warns(
        UserWarning, match=r"the C code of this checkout was never built: .* run `pip install -e .` \(or "
    ):
        RaggedLSTM(4, 7)(torch.randn(3, 5, 4))


def test_an_installation_without_library_and_report_says_so(left_out: Path, anew: pytest.MonkeyPatch):
    anew.setattr(library, "digest", lambda: None)
    with pytest.warns(UserWarning, match="this installation has no C code: .* install a C compiler"):
        RaggedLSTM(4, 7)(torch.randn(3, 5, 4))


def test_a_file_that_is_no_library_is_not_loaded(left_out: Path):
    library.LIBRARY.write_bytes(b"no library")
    with pytest.warns(UserWarning, match=r"native.so could not be loaded: .* install towers again"):
        RaggedLSTM(4, 7)(torch.randn(3, 5, 4))


@needs_compiler
def test_a_library_of_other_sources_is_an_error_that_names_the_command(anew: pytest.MonkeyPatch):
    anew.setattr(library, "digest", lambda: "0123456789abcdef")
    for call in (RaggedLSTM(4, 7), RaggedLSTM(4, 7).backend, Tower(vector_width=4)) * 2:
        with pytest.raises(ImportError, match=r"built from other C sources .* than those beside it \(0123456789abcdef\): "
                           r"run `pip install -e .` \(or only `python .build/native.py`\) in the checkout"):  # fmt: skip
            call(torch.randn(3, 5, 4))


@needs_compiler
def test_an_installed_wheel_has_no_sources_to_compare(anew: pytest.MonkeyPatch):
    anew.setattr(library, "digest", lambda: None)
    assert cpu.why_not() is None


def test_each_change_of_a_source_changes_the_hash(tmp_path, monkeypatch: pytest.MonkeyPatch):
    before = built.digest()
    for source in (*built.FOLDER.glob("*.c"), *built.FOLDER.glob("*.h")):
        (tmp_path / source.name).write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr(built, "FOLDER", tmp_path)
    assert built.digest() == before, "only the ends of lines differ"
    sources, found = sorted(tmp_path.iterdir()), [before]
    for source in sources:
        source.write_text(source.read_text(encoding="utf8") + "/* more */\n", encoding="utf8")
        found.append(built.digest())
    sources[0].rename(tmp_path / "other.c")
    assert len({*found, built.digest()}) == len(sources) + 2


@needs_compiler
def test_the_backend_and_its_reason_are_said_for_all_that_forward_takes():
    lstm, x, lengths = RaggedLSTM(4, 7), torch.randn(3, 5, 4), torch.tensor([5, 0, 2])
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 1, 2]), batch_first=True, enforce_sorted=False)
    jagged = torch.nested.nested_tensor(list(x), layout=torch.jagged)
    state = (torch.zeros(1, 3, 7), torch.zeros(1, 3, 7))
    for found in (
        lstm.backend(x, state, lengths=lengths),
        *map(lstm.backend, (Ragged.from_list(list(x)), packed, jagged)),
    ):
        assert (found.name, str(found)) == ("native", f"native: C code, compiled for {library.level()}")
    assert lstm.bfloat16().backend(x.bfloat16()).name == "native", "it computes in float32"
    assert str(RaggedLSTM(4, 7, proj_size=2).backend(x)) == "torch: the C code has no projection"
    with pytest.raises(ShapeContractError, match="input_size is 5; expected 4"):
        RaggedLSTM(4, 7).backend(torch.randn(3, 5, 5))


def test_native_code_is_switched_off(anew: pytest.MonkeyPatch):
    anew.setenv("TOWERS_NATIVE", "off")
    anew.setattr(ctypes, "CDLL", lambda *_: pytest.fail("nothing is to be loaded"))
    lstm, x = RaggedLSTM(4, 7), torch.randn(3, 5, 4)
    assert str(lstm.backend(x)) == "torch: TOWERS_NATIVE is off"
    torch.testing.assert_close(lstm(x)[0], lstm.to_torch()(x)[0])
    assert Tower(vector_width=20)(torch.randn(3, 5, 20)).shape == (3, 6)


def test_an_unknown_level_is_one_clear_error(anew: pytest.MonkeyPatch):
    anew.setenv("TOWERS_NATIVE", "v5")
    for call in (RaggedLSTM(4, 7), RaggedLSTM(4, 7).backend):
        with pytest.raises(ValueError, match="TOWERS_NATIVE is 'v5'; expected off, v2, v3 or v4, or leave it unset"):
            call(torch.randn(3, 5, 4))


@needs_compiler
@pytest.mark.parametrize(("has", "best"), [(3, "v3 at most"), (2, "v2 at most"), (1, "no level of x86-64")])
def test_a_level_that_the_processor_lacks_is_not_run(anew: pytest.MonkeyPatch, has: int, best: str):
    anew.setenv("TOWERS_NATIVE", "v4")
    anew.setattr(library, "_processor", lambda _: has)
    with pytest.warns(UserWarning, match="Remedy: leave it unset"):
        found = RaggedLSTM(4, 7).backend(torch.randn(3, 5, 4))
    assert found == ("torch", f"TOWERS_NATIVE is v4, and this processor has {best}")


@needs_compiler
def test_a_processor_below_all_levels_runs_no_code(anew: pytest.MonkeyPatch):
    anew.setattr(library, "_processor", lambda _: 0)
    with pytest.warns(UserWarning, match="this processor has not even x86-64-v2"):
        RaggedLSTM(4, 7)(torch.randn(3, 5, 4))


@needs_compiler
@pytest.mark.parametrize("wrong", [10**7, 1, -(10**7)])
def test_lengths_that_are_changed_before_the_way_back_change_nothing(wrong):
    module, x, found = RaggedLSTM(4, 6), torch.randn(3, 5, 4), list[Tensor]()
    for changed in (False, True):
        lengths, offsets = torch.tensor([5, 2, 3]), torch.tensor([0, 5, 7, 15])
        loss = module(x, lengths=lengths)[0].sum() + module(Ragged(x.flatten(0, 1), offsets))[1][0].sum()
        if changed:
            lengths.fill_(wrong)
            offsets[1] = wrong
        found.append(torch.autograd.grad(loss, module.weight_ih_l0)[0])
    assert torch.equal(*found)


@pytest.fixture
def elsewhere():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@needs_compiler
@pytest.mark.usefixtures("elsewhere")
def test_where_tensors_are_made_by_default_does_not_matter():
    module, tower = RaggedLSTM(4, 6, device="cpu"), Tower(vector_width=20, device="cpu")
    with torch.device("cpu"):
        x, sentences = torch.randn(3, 5, 4), torch.randn(3, 5, 20)
    for state in (module(x)[0], tower(sentences)):
        state.sum().backward()
        assert state.isfinite().all()
    assert tower.conv.weight.grad.isfinite().all()


@needs_compiler
def test_what_is_negated_lazily_is_read_as_negative():
    module, tower, x, sentences = RaggedLSTM(4, 6), Tower(vector_width=20), torch.randn(3, 5, 4), torch.randn(3, 5, 20)
    assert torch.equal(module(torch._neg_view(x))[0], module(-x)[0])
    assert torch.equal(tower(torch._neg_view(sentences)), tower(-sentences))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, for jvp
def test_forward_mode_has_a_derivative_and_not_zero():
    module, tower, x, sentences = RaggedLSTM(4, 6), Tower(vector_width=20), torch.randn(3, 5, 4), torch.randn(3, 5, 20)
    for call, one in ((lambda x: module(x)[0], x), (tower, sentences)):
        _, slope = torch.func.jvp(call, (one,), (one,))
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(call(forward_ad.make_dual(one, one)))
        assert torch.equal(dual.tangent, slope)
        assert torch.allclose(slope, (call(1.001 * one) - call(0.999 * one)) / 0.002, atol=1e-3)
