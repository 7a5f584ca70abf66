"""Where a module holds that does not hold everywhere: the condition is right at every size, and no narrower than needed."""

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from towers.contracts import ShapeContractError, attach, contract, trace, verify
from towers.contracts.proofs.ranges import Span
from towers.contracts.proofs.reality import RealityCheck
from towers.contracts.proofs.verdicts import negated


class Cuts(nn.Module):
    """Gives back what came, but for the sizes at which `wrong` says so."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    @contract
    def forward(self, x: Float[Tensor, "batch high"]) -> Float[Tensor, "batch high"]:
        return x[:, 1:] if self.wrong(x.shape[1]) else x


CASES = [
    (lambda high: high < 8, "high >= 8"),
    (lambda high: high // 2 < 4, "high >= 8"),
    (lambda high: not (high >= 8 or high < 2), "not 2 <= high <= 7"),
    (lambda high: not (high // 2 >= 4 or high < 2), "not 2 <= high <= 7"),
    (lambda high: high // 2 > 4, "high <= 9"),
    (lambda high: 3 <= high // 2 <= 4, "not 6 <= high <= 9"),
    (lambda high: high // 3 < 2, "high >= 6"),
    (lambda high: high % 3 == 1, "high % 3 == 0 or high % 3 == 2"),
    (lambda high: high % 2 == 1 or high // 2 < 3, "high % 2 == 0 and high >= 6"),
]


def test_a_region_that_lies_in_another_adds_no_condition():
    failed = [{"time": span} for span in (Span(32, 35), Span(13), Span(37, 37), Span(4, 4))]
    assert negated(failed, {"time": Span(1)}) == ("time != 4", "time <= 12")


def test_what_axes_exclude_together_is_told_beside_what_each_excludes_alone():
    """A letter of one axis in the name of another makes no difference, and only what lies within is left out."""
    two, small = Span(2), {"batch": Span(1, 1), "h": Span(2, 3), "w": Span(2, 3)}
    failed = [{"batch": two, "h": Span(1, 1), "w": two}, {"batch": two, "h": two, "w": Span(1, 1)}, small]
    told = negated(failed, dict.fromkeys(small, Span(1)))
    assert told == ("h >= 2", "w >= 2", "not (batch == 1 and h >= 2 and h <= 3 and w >= 2 and w <= 3)")
    within = {"batch": Span(1, 1), "h": Span(4, None, 6), "w": Span(5, 5)}
    assert negated(
        [within, {**small, "batch": two, "h": Span(1, None, 3), "w": two}], dict.fromkeys(small, Span(1))
    ) == ("h % 3 == 0 or h % 3 == 2",)


class PooledNorm(nn.Module):
    """A batch norm of what a pool leaves needs two numbers in each channel."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Float[Tensor, "batch 2 h w"]) -> Float[Tensor, "batch 2 h//2 w//2"]:
        return self.norm(F.avg_pool2d(x, 2))


def test_a_norm_of_one_pooled_number_is_excluded():
    proof = verify(PooledNorm(), seconds=600)
    for batch, h, w in ((1, 2, 2), (1, 3, 2), (1, 4, 2), (2, 2, 2), (2, 1, 2), (1, 2, 5)):
        holds = all(eval(text, {"batch": batch, "h": h, "w": w}) for text in proof.conditions)
        assert holds == (batch * (h // 2) * (w // 2) > 1), (batch, h, w)


@pytest.mark.parametrize(("wrong", "text"), CASES, ids=[text for _, text in CASES])
def test_the_condition(wrong, text):
    module = Cuts(wrong)
    proof = verify(module, seconds=600)
    assert (proof.verdict, " and ".join(proof.conditions)) == ("holds if", text)
    for high in range(1, 30):
        holds = eval(text, {"high": high})
        if holds:
            module(torch.zeros(2, high))
        else:
            with pytest.raises(ShapeContractError):
                module(torch.zeros(2, high))


class Half(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch high"]) -> Float[Tensor, "batch high/2 6/2"]:
        return x[:, ::2, None].expand(-1, -1, 3)


def test_a_true_quotient():
    assert verify(Half(), where="high % 2 == 0")
    proof = verify(Half(), seconds=600)
    assert (proof.verdict, proof.conditions) == ("holds if", ("high % 2 == 0",))
    assert "high/2 is (high+1)//2; expected no whole number (high as in x)" in str(proof)


def test_conditions_are_a_text_or_several():
    assert verify(Half(), where=["high % 2 == 0", "batch <= 9"])
    assert str(trace(Half(), where="high % 2 == 0"))
    with pytest.raises(TypeError, match=r"verify: where is 3; expected a text such as 'words >= 2', or several"):
        verify(Half(), where=3)
    with pytest.raises(TypeError, match=r"trace: where is 3; expected a text"):
        trace(Half(), where=3)


@pytest.mark.parametrize(
    ("inner", "verdict", "conditions"),
    [
        ("t <= 3", "holds if", ("t <= 3",)),
        ("3 >= t", "holds if", ("t <= 3",)),
        ("2*t <= 30", "holds if", ("t <= 15",)),
        ("t % 2 == 0", "holds if", ("t % 2 == 0",)),
        ("t >= 5", "holds if", ("t >= 5",)),
        ("t == 4", "specialised", ("t == 4",)),
        ("batch <= 3", "holds if", ("batch <= 3",)),
        ("t <= batch", "holds if", ("batch >= t",)),
        ("t >= 1", "proven", ()),
    ],
)
def test_a_condition_of_a_part_counts_at_every_size(inner, verdict, conditions):
    part, module = nn.Linear(8, 8), nn.Sequential()
    attach(part, "batch t 8 -> batch t 8", where=inner)
    attach(module.append(part), "batch t 8 -> batch t 8")
    proof = verify(module, seconds=600)
    assert (proof.verdict, proof.conditions) == (verdict, conditions)
    assert verify(module, where=inner)


class Masked(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    @contract
    def forward(
        self, x: Float[Tensor, "batch time 8"], mask: Bool[Tensor, "#batch #time 8"]
    ) -> Float[Tensor, "batch time 8"]:
        return self.how(x, mask)


def test_axes_that_broadcast_are_1_too():
    assert verify(Masked(lambda x, mask: x.masked_fill(mask, 0.0)), seconds=60)
    proof = verify(Masked(lambda x, mask: torch.zeros(mask.shape)), seconds=60)
    assert proof.headline() == "specialised batch == 1 and time == 1 (#batch of 1)"
    assert "the result: batch is 1; expected batch (as in x)" in str(proof)
    assert (
        verify(Masked(lambda x, mask: x.masked_fill(mask.view(x.shape), 0.0)), seconds=60).conditions
        == proof.conditions
    )


def test_a_condition_for_one_way_to_call_is_none_for_the_module_where_another_is_not_provable():
    class Half(nn.Module):
        @contract
        def forward(
            self, x: Float[Tensor, "batch time"], y: Float[Tensor, "batch"] | None = None
        ) -> Float[Tensor, "batch time"]:
            if y is None:
                return x[:, : x.shape[1] // 2 * 2]
            for step in range(x.shape[1]):
                x = x + step
            return x

    proof = verify(Half(), seconds=600)
    assert (proof.verdict, proof.conditions) == ("failed", ())
    assert "so called it holds if time % 2 == 0" in proof.message


@pytest.mark.parametrize(
    ("how", "text", "told"),
    [
        (lambda x: x.chunk(2)[0], "batch 8 -> (batch+1)//2 8", "proven"),
        (lambda x: sum(x.chunk(2, 1)), "batch time 8 -> batch time//2 8", "holds if time % 2 == 0"),
        (lambda x: x.chunk(3, 1)[2], "time width -> time _", "holds if width >= 3 and width != 4"),
        (lambda x: x.t().chunk(2, 1)[1].reshape(-1), "4 time -> 2*time", "proven"),
        (lambda x: x.t().chunk(2, 1)[1].view(-1), "4 time -> 2*time", "specialised time == 1"),
    ],
    ids=["one", "both", "third of three", "turned", "turned and viewed"],
)
def test_chunks(how, text, told):
    module = nn.Identity()
    module.forward = how
    attach(module, text)
    assert verify(module, seconds=60).headline() == told


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (lambda x: F.max_pool1d(F.avg_pool1d(x.mT, 2, 2, ceil_mode=True), 3, 2), "batch time 8 -> batch 8 _"),
        (lambda x: x[:, ::2].reshape(-1, 2, 8), "batch time 8 -> _ 2 8"),
    ],
    ids=["two pools", "pairs"],
)
def test_what_sympy_cannot_compute_with_is_no_crash_and_no_proof(how, text):
    module = nn.Identity()
    module.forward = how
    attach(module, text)
    assert not verify(module)


class Writes(nn.Module):
    """Writes its argument to twelve places, which are told in one of several ways."""

    def __init__(self, write):
        super().__init__()
        self.write = write

    @contract
    def forward(self, x: Float[Tensor, "batch high"]) -> Float[Tensor, "batch 30"]:
        places = torch.zeros(x.shape[0], 30)
        found = self.write(places, x)
        return places if found is None else found


EVERY = slice(None)
WAYS = {
    "slice": lambda places, x: places.__setitem__((EVERY, slice(3, 15)), x),
    "tensor": lambda places, x: places.__setitem__((EVERY, torch.arange(12)), x),
    "list": lambda places, x: places.__setitem__((EVERY, list(range(0, 24, 2))), x),
    "index_put": lambda places, x: places.T.index_put((torch.arange(12),), x.T, accumulate=True).T,
    "a sum": lambda places, x: places.__setitem__((EVERY, slice(12)), places[:, 12:24] + x),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_number_or_as_many_as_places(way):
    proof = verify(Writes(WAYS[way]), seconds=600)
    assert (proof.verdict, proof.conditions) == ("holds if", ("high == 1 or high == 12",))


def test_a_mask_leaves_open_how_many_are_written():
    """No size at which real tensors happened to fit is told as the condition."""
    mask = torch.arange(30) % 5 < 2
    proof = verify(Writes(lambda places, x: places.__setitem__((EVERY, mask), x)), seconds=600)
    assert (proof.verdict, proof.conditions) == ("failed", ())


def test_a_bound_that_no_time_was_left_to_find_is_not_told(monkeypatch):
    monkeypatch.setattr(RealityCheck, "bound", lambda self, case, axis, passing, failing: None)
    assert verify(Table(), seconds=600).conditions == ()


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(37, 4)

    @contract
    def forward(self, x: Float[Tensor, "batch time 4"]) -> Float[Tensor, "batch time 4"]:
        return x + self.rows(torch.arange(x.shape[1]))
