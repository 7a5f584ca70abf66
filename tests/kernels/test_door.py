"""What reaches the C code, and what must not: tensors that fit nothing, and code that is not plain and eager.

Each case was once a crash, a read beyond the end, or a silently wrong number. The reference is the layers themselves,
which run where somebody listens to one of them.
"""

import copy
import ctypes
import subprocess
from pathlib import Path

import pytest
import torch
from tests.helpers.forked import Forks
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize, prune

from towers import Ragged, RaggedLSTM, Tower, TwoTowers
from towers.contracts import checks
from towers.kernels import cpu
from towers.kernels.cpu import threads, tower_call

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")
LENGTHS = torch.tensor([6, 2, 4])


class Last(nn.Module):
    """An LSTM whose result is one tensor."""

    def __init__(self, lstm: RaggedLSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x, lengths=None):
        return self.lstm(x, lengths=lengths)[0]


@pytest.fixture(params=["tower", "lstm"])
def model(request) -> nn.Module:
    return Tower(vector_width=8, filters=8, pool=2, hidden=3) if request.param == "tower" else Last(RaggedLSTM(8, 3))


def by_layers(tower: Tower, *given):
    handle = tower.conv.register_forward_hook(lambda *_: None)
    try:
        return tower(*given)
    finally:
        handle.remove()


def close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# Who is not plain eager code.


@pytest.mark.filterwarnings("ignore")  # of torch.jit, about itself and about numbers that it takes for constants
@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "with gradients"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["alike", "lengths"])
def test_a_trace_by_torch_jit_holds_for_other_sentences(model, lengths, gradients):
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, (torch.randn(3, 6, 8), *([] if lengths is None else [lengths])))
        for shape in ((3, 6, 8), (5, 9, 8)) if lengths is None else ((3, 6, 8),):
            given = (torch.randn(shape), *([] if lengths is None else [torch.tensor([3, 5, 6])]))
            close(traced(*given), model(*given))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx_records_the_tower_and_not_its_memory(model, mode):
    graph = make_fx(lambda x: model(x), tracing_mode=mode, _allow_non_fake_inputs=True)(torch.randn(3, 6, 8))
    other = torch.randn(3, 6, 8)
    close(graph(other), model(other))


def loss_of(model, x):
    return lambda weights: torch.func.functional_call(model, weights, (x,)).square().sum()


def test_torch_func_has_the_gradients_of_autograd(model):
    x, weights = torch.randn(3, 6, 8), dict(model.named_parameters())
    loss = loss_of(model, x)
    wanted = torch.autograd.grad(loss(weights), list(weights.values()))
    for found, want in zip(torch.func.grad(loss)(weights).values(), wanted, strict=True):
        close(found, want, 1e-4)

    def of_one(weights, x):
        return loss_of(model, x.unsqueeze(0))(weights)

    each = torch.func.vmap(torch.func.grad(of_one), (None, 0))(weights, x)
    for found, want in zip(each.values(), wanted, strict=True):
        close(found.sum(0), want, 1e-4)


def test_jacobians_and_hessians(model):
    model, x = model.double(), torch.randn(1, 3, 8, dtype=torch.float64)

    def loss(x):
        return model(x).square().sum()

    x_ = x.clone().requires_grad_()
    close(torch.func.jacrev(loss)(x), torch.autograd.grad(loss(x_), x_)[0], 1e-9)
    hessian = torch.func.hessian(loss)(x)
    close(hessian, torch.autograd.functional.hessian(loss, x), 1e-9)


def test_forward_mode(model):
    model, x, slope = model.double(), torch.randn(3, 6, 8, dtype=torch.float64), torch.randn(3, 6, 8).double()
    _, found = torch.func.jvp(model, (x,), (slope,))
    close(found, (model(x + 1e-6 * slope) - model(x - 1e-6 * slope)) / 2e-6, 1e-6)


class Named(torch.Tensor):
    """Somebody's tensors; those of libraries for images and units are such."""


@pytest.mark.parametrize("what", ["sentences", "weights"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["alike", "lengths"])
def test_tensors_of_another_class_have_the_same_results(model, what, lengths):
    x = torch.randn(3, 6, 8)
    wanted = model(x, lengths)
    slopes = torch.autograd.grad(wanted.square().sum(), list(model.parameters()))
    if what == "weights":
        for layer in model.modules():
            for name, part in list(layer.named_parameters(recurse=False)):
                setattr(layer, name, nn.Parameter(part.detach().as_subclass(Named)))
    found = model(x.as_subclass(Named) if what == "sentences" else x, lengths)
    close(found.as_subclass(torch.Tensor), wanted)
    for one, want in zip(torch.autograd.grad(found.square().sum(), list(model.parameters())), slopes, strict=True):
        close(one.as_subclass(torch.Tensor), want, 1e-4)


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 2, 3])], ids=["alike", "lengths"])
def test_gradients_have_gradients(model, lengths):
    # Four words: a first step, steps inside and a last one, each with every number of x changed in turn.
    model, x = model.double(), torch.randn(3, 4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: model(x, lengths), (x,))
    loss = model(x, lengths).square().sum()
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    again = torch.autograd.grad(sum(slope.square().sum() for slope in slopes), list(model.parameters()))
    assert all(one.isfinite().all() and one.any() for one in again)


def test_gradients_in_batches(model):
    x = torch.randn(3, 6, 8, requires_grad=True)
    result = model(x)
    directions = torch.randn(4, *result.shape)
    (found,) = torch.autograd.grad(result, x, directions, is_grads_batched=True, retain_graph=True)
    close(found, torch.stack([torch.autograd.grad(result, x, one, retain_graph=True)[0] for one in directions]))


# Nothing to do, and gradients all the same.


@pytest.mark.parametrize("backend", ["native", "torch"], indirect=True)
def test_an_empty_batch_gives_every_weight_a_gradient_of_zero(model, backend):
    x = torch.randn(0, 6, 8, requires_grad=True)
    model(x).sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())
    assert x.grad is not None


# On a machine with much other load it once seemed to hang. 11 runs there ended well, in up to 107 s; in one, both processes
# were seen where DDP's constructor imports torch's compiler, so they may have met too late for gloo's 60 s.
@pytest.mark.slow
def test_ddp_with_no_sentence_in_one_of_two_processes(tmp_path: Path, forks: Forks):
    script = Path(__file__).parent / "empty_rank.py"
    workers = [
        subprocess.Popen([forks.python, script, str(rank), str(tmp_path / "meeting")], stdout=-1, stderr=-1, text=True)
        for rank in range(2)
    ]
    try:
        for worker in workers:
            out, err = worker.communicate(timeout=1200)
            assert worker.returncode == 0, err
            assert out.split() == ["Tower", "TwoTowers", "Last"]
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.parametrize("backend", ["native", "torch"], indirect=True)
@pytest.mark.parametrize("steps", [0, 2])
def test_where_no_step_is_made_the_state_and_its_gradient_pass(backend, steps):
    lstm, x = RaggedLSTM(4, 3), torch.randn(3, steps, 4, requires_grad=True)
    h, c = (torch.randn(1, 3, 3, requires_grad=True) for _ in range(2))
    _, (h_n, c_n) = lstm(x, (h, c), lengths=torch.zeros(3, dtype=torch.int64))
    assert h_n.data_ptr() != h.data_ptr()
    assert c_n.data_ptr() != c.data_ptr()
    (h_n.sum() + 2 * c_n.sum()).backward()
    assert torch.equal(h.grad, torch.ones_like(h))
    assert torch.equal(c.grad, 2 * torch.ones_like(c))
    assert all(weight.grad is not None and not weight.grad.any() for weight in lstm.parameters())


# Tensors that do not fit, contracts off: a refusal, and no read beyond an end.


@pytest.mark.parametrize("mode", ["on", "off"])
@pytest.mark.parametrize("change", [lambda b: b[:2].clone(), lambda b: b[:0]], ids=["short", "empty"])
def test_a_bias_of_another_size_is_refused(model, mode, change):
    for name, bias in model.named_parameters():
        if "bias" in name:
            kept, bias.data = bias.data, change(bias.data)
            with checks(mode), pytest.raises(RuntimeError, match=r"they do not fit|must match"):
                model(torch.randn(3, 6, 8))
            bias.data = kept


def test_a_bias_of_another_dtype_never_reaches_the_c_code():
    tower, x = Tower(vector_width=8, filters=8, pool=2, hidden=3), torch.randn(3, 6, 8)
    tower.lstm.bias_ih_l0.data = tower.lstm.bias_ih_l0.data.double()
    for mode in ("on", "off"):
        with checks(mode), pytest.raises(RuntimeError, match=r"torch.float32, torch.float64"):
            tower(x)


@pytest.mark.parametrize(
    "lengths",
    [torch.tensor([6, 2]), torch.tensor([6, 2, 4, 4]), torch.tensor([[6, 2, 4]])],
    ids=["few", "many", "axes"],
)
def test_lengths_of_another_count_are_refused(model, lengths):
    with checks("off"), pytest.raises(ValueError, match=r"lengths is .*3"):
        model(torch.randn(3, 6, 8), lengths)


def test_lengths_out_of_range_read_nothing_out_of_bounds(model):
    x = torch.randn(3, 6, 8)
    with checks("off"):
        close(model(x, torch.tensor([99, 2, 6])), model(x, torch.tensor([6, 2, 6])))


@pytest.mark.parametrize("offsets", [[0, 2, 9], [0, 5, 3, 7], [1, 3, 7], [-1, 3, 7]])
def test_offsets_that_are_none_are_no_way_past_the_door(offsets):
    tower = Tower(vector_width=8, filters=8, pool=2, hidden=3)
    sentences = Ragged.unchecked(torch.randn(7, 8), torch.tensor(offsets))
    with checks("off"), torch.no_grad():
        try:
            result = tower(sentences)
        except (RuntimeError, IndexError, ValueError):
            return
    assert result.shape == (len(offsets) - 1, 3)


def test_a_storage_that_is_too_small_is_refused(model):
    x = torch.randn(3, 6, 8)
    x.untyped_storage().resize_(0)
    for lengths in (None, LENGTHS):
        with pytest.raises(RuntimeError, match="storage holds 0"):
            model(x, lengths)
    x, weight = torch.randn(3, 6, 8, requires_grad=True), next(model.parameters())
    result = model(x).sum()
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="storage holds 0"):
        result.backward()
    result = model(torch.randn(3, 6, 8)).sum()
    weight.untyped_storage().resize_(4)
    with pytest.raises(RuntimeError, match=r"storage holds 4|came back"):
        result.backward()
    with pytest.raises(RuntimeError, match="storage"):
        model(torch.randn(3, 6, 8))


@pytest.mark.parametrize("change", [lambda s: s.half(), lambda s: s[:1].clone()], ids=["dtype", "size"])
def test_hooks_that_change_what_was_saved_are_refused(model, change):
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, change):
        result = model(torch.randn(3, 6, 8), LENGTHS).sum()
    with pytest.raises(RuntimeError, match="came back from torch's graph"):
        result.backward()


def test_numbers_that_hooks_change_stay_numbers(model):
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: torch.full_like(saved, -1e6)):
        result = model(torch.randn(3, 6, 8), LENGTHS).sum()
    result.backward()


# Weights that changed, whoever changed them: what the layers give.


def replaced(tower: Tower) -> None:
    tower.conv.weight = nn.Parameter(torch.randn_like(tower.conv.weight))


def set_data(tower: Tower) -> None:
    tower.lstm.weight_hh_l0.data = torch.randn_like(tower.lstm.weight_hh_l0)


def in_place(tower: Tower) -> None:
    with torch.no_grad():
        tower.conv.bias.add_(1)


def behind_torch(tower: Tower) -> None:
    tower.lstm.weight_ih_l0.detach().numpy()[:] += 1


def transposed(tower: Tower) -> None:
    tower.lstm.weight_hh_l0.data = tower.lstm.weight_hh_l0.data.t().contiguous().t()


def negative(tower: Tower) -> None:
    tower.conv.bias.data = torch._neg_view(tower.conv.bias.data + 1)


def pruned(tower: Tower) -> None:
    prune.l1_unstructured(tower.conv, "weight", 0.5)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def parametrized(tower: Tower) -> None:
    parametrize.register_parametrization(tower.lstm, "weight_hh_l0", Doubled())


def other_layer(tower: Tower) -> None:
    tower.lstm = RaggedLSTM(4, 3, num_layers=2, bias="single")


def other_forward(tower: Tower) -> None:
    before = tower.conv.forward
    tower.conv.forward = lambda *given: before(*given).with_values(before(*given).values * 2)


CHANGES = [
    replaced,
    set_data,
    in_place,
    behind_torch,
    transposed,
    negative,
    pruned,
    parametrized,
    other_layer,
    other_forward,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("gradients", [False, True], ids=["no gradient", "gradients"])
def test_a_change_of_the_layers_is_seen_by_the_next_call(change, gradients):
    model = TwoTowers(Tower(vector_width=8, filters=8, pool=2, hidden=3), Tower(5, vector_width=8, hidden=3))
    left, right = torch.randn(3, 6, 8), torch.randn(3, 5, 8)
    with torch.set_grad_enabled(gradients):
        before = model(left, right)
        change(model.left)
        found = model(left, right)
        close(found, model.compare(by_layers(model.left, left), by_layers(model.right, right)))
    if change not in (transposed,):
        assert not torch.equal(found, before)


def test_functional_call_uses_its_weights():
    model = TwoTowers(Tower(vector_width=8, hidden=3), Tower(5, vector_width=8, hidden=3))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.normal_()
        given = torch.randn(3, 6, 8), torch.randn(3, 5, 8)
        found = torch.func.functional_call(model, dict(other.named_parameters()), given)
        close(found, other(*given))
        close(model(*given), TwoTowers.forward(model, *given))


def test_whoever_listens_hears_every_layer():
    model, given = TwoTowers(), (torch.randn(2, 9, 300), torch.randn(2, 5, 300))
    layers = [m for m in model.modules() if m is not model]
    with torch.no_grad():
        wanted = model(*given)
        for layer in layers:
            heard = []
            handle = layer.register_forward_pre_hook(lambda *_, heard=heard: heard.append(1))
            close(model(*given), wanted)
            handle.remove()
            assert heard or type(layer) is RaggedLSTM, layer  # `last` of an LSTM is called where its forward is not
        heard = []
        handle = nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(type(module).__name__))
        close(model(*given), wanted)
        handle.remove()
        assert {"Tower", "PhraseConv", "FeaturePool", "Linear"} <= set(heard)


@pytest.mark.parametrize("kind", ["tower", "lstm"])
def test_where_threads_cannot_start_one_does_the_work_and_says_so_once(kind, monkeypatch):
    module = Tower(vector_width=20) if kind == "tower" else Last(RaggedLSTM(20, 40))
    x, before = torch.randn(200, 9, 20), torch.get_num_threads()

    def results() -> list[torch.Tensor]:
        result = module(x)
        return [result.detach(), *torch.autograd.grad(result.square().sum(), list(module.parameters()))]

    wanted = results()
    fails = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 2)(lambda *_: 1)
    monkeypatch.setattr(tower_call, "parallel_at", lambda: ctypes.cast(fails, ctypes.c_void_p).value)
    monkeypatch.setattr(threads, "parallel_for", lambda: fails)
    threads.warn_of_one_thread.cache_clear()
    torch.set_num_threads(2)
    try:
        with pytest.warns(UserWarning, match="threads could not be started: .* in one thread") as said:
            found = [results() for _ in range(2)]
    finally:
        torch.set_num_threads(before)
        threads.warn_of_one_thread.cache_clear()
    assert len(said) == 1
    for one, other, want in zip(*found, wanted, strict=True):
        assert torch.equal(one, other)
        close(one, want, 1e-3)


def test_ten_thousand_calls_take_no_memory():
    resource = pytest.importorskip("resource")
    model, given = TwoTowers(), (torch.randn(1, 9, 300), torch.randn(1, 5, 300))
    with torch.no_grad():
        for _ in range(100):
            model(*given)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(10_000):
            model(*given)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB
