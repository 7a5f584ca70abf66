"""`verify`: its verdicts, what they say, and what it leaves alone."""

import copy
import json
import time
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Bool, Float, Int, jaxtyped
from torch import Tensor, nn
from torch.fx.experimental import symbolic_shapes

from towers import FeaturePool, PhraseConv, RaggedLSTM, Tower, TwoTowers
from towers.contracts import Proof, attach, checks, contract, verify
from towers.contracts.proofs import verify as proving

from ...helpers.forked import Forks


class Double(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x * 2


class Even(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x[:, : x.shape[1] // 2 * 2]


class Long(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x[:, :-1] if x.shape[1] > 30 else x


class Twenty(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x.view(-1, 20, 8)


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(8, 6)

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 6"]:
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state[0]


class Transposed(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x.transpose(0, 1)


OURS = {
    "TwoTowers": TwoTowers,
    "Tower": Tower,
    "five words": lambda: Tower(words=5),
    "in chunks": lambda: Tower(chunk=2),
    "five words in chunks": lambda: Tower(words=5, chunk=2),
    "shared": lambda: TwoTowers(tower := Tower(), tower),
    "three words a phrase": lambda: TwoTowers(Tower(kernel_words=3, filters=12, pool=3), Tower(words=7)),
    "PhraseConv": PhraseConv,
    "FeaturePool": FeaturePool,
    "RaggedLSTM": lambda: RaggedLSTM(8, 6, num_layers=2, bidirectional=True, proj_size=3),
}


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_ours_are_proven_with_and_without_lengths(make: Any):
    proof = verify(make())
    assert proof
    assert proof.verdict == "proven"
    assert any("lengths" in finding.label and "with " in finding.label for finding in proof.findings)
    assert any(text == "batch >= 0" for text in proof.axes.values())


def test_two_towers_for_every_batch_and_every_length_from_two_on():
    proof = verify(TwoTowers())
    assert proof.axes == {"batch": "batch >= 0", "left_words": "left_words >= 2", "right_words": "right_words == 5"}
    assert {each.path for each in proof.contracts} >= {"", "left", "left.conv", "left.pool", "left.lstm", "right.lstm"}
    assert {each.verdict for each in proof.contracts} == {"proven"}


def test_failed_says_what_a_run_time_check_says():
    proof = verify(Transposed())
    assert (proof.verdict, proof.conditions) == ("holds if", ("batch == time",))
    assert proof.message.splitlines()[0] == "Transposed.forward: the result: batch is time; expected batch (as in x)"
    assert "transpose(0, 1) would fit" in proof.message
    assert "(batch, time, 8) -> (time, batch, 8)" in str(proof)


@pytest.mark.parametrize(
    ("module", "conditions"),
    [(Even(), ("time % 2 == 0",)), (Long(), ("time <= 30",))],
    ids=["odd", "long"],
)
def test_holds_if(module: nn.Module, conditions: tuple[str, ...]):
    proof = verify(module)
    assert (proof.verdict, proof.conditions) == ("holds if", conditions)
    assert not proof
    assert verify(module, where=conditions)


def test_a_short_limit_is_the_proofs(monkeypatch: pytest.MonkeyPatch):
    """A tenth of it is kept for the real runs, which find what no symbol tells."""
    ends: list[float] = []

    def noted(seconds: float, work: Callable[[], Any]) -> Any:
        ends.append(seconds + time.perf_counter())
        return work()

    monkeypatch.setattr(proving, "within", noted)
    start = time.perf_counter()
    assert verify(Double(), seconds=4)
    _, proven, tried = ends
    assert proven - start == pytest.approx(4 * proving.WITHIN - 0.4, abs=0.1)
    assert tried - start == pytest.approx(4, abs=0.1)


def test_torch_looks_for_no_place_of_its_own(monkeypatch: pytest.MonkeyPatch):
    """Its first look imports hundreds of modules, within the time limit."""

    def looked() -> set[str]:
        raise AssertionError

    monkeypatch.setattr(symbolic_shapes, "uninteresting_files", looked)
    assert verify(Even()).verdict == "holds if"


def test_specialised_names_the_size_and_the_place():
    proof = verify(Twenty(), seconds=60)
    assert (proof.verdict, proof.conditions) == ("specialised", ("time == 20",))
    assert "test_verify.py:" in proof.place


def test_a_loop_over_time_is_not_provable_and_was_run():
    proof = verify(Loop())
    assert proof.verdict == "not provable"
    assert "time is made a number at" in proof.message
    assert "test_verify.py:" in proof.message
    assert proof.tried >= 8
    assert f"{proof.tried} real ones" in str(proof)


def test_a_loop_that_is_wrong_at_some_length_is_found():
    class Wrong(Loop):
        @contract
        def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch 6"]:
            result = x.new_zeros(x.shape[0], 6)
            for step in range(x.shape[1]):
                result = result if step < 3 else result[:, :5]
            return result

    assert verify(Wrong()).verdict in ("failed", "holds if")


def test_a_branch_of_which_both_sides_hold_is_proven():
    class Branch(nn.Module):
        @contract
        def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
            if x.shape[1] % 3 == 0 or x.shape[0] > 17:
                return x + 1
            return x * 2

    assert verify(Branch())


def test_excluded_and_small_sizes_are_run():
    class Difference(nn.Module):
        @contract(where=("time >= 2",))
        def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time-1"]:
            difference = x[:, 1:] - x[:, :-1]
            return difference if x.shape[1] > 2 else difference.squeeze()

    proof = verify(Difference())
    assert (proof.verdict, proof.conditions) == ("holds if", ("time >= 3",))
    assert verify(Double(), where=("batch >= 0", "time >= 0")).axes["batch"] == "batch >= 0"


def test_inputs_may_be_given():
    class Scaled(nn.Module):
        @contract
        def forward(self, x: Float[Tensor, "batch time"], how: str) -> Float[Tensor, "batch time"]:
            return x * 2 if how == "double" else x[:, 1:]

    assert verify(Scaled(), how="double")
    assert verify(Scaled(), torch.zeros(3, 5), "double")
    assert verify(Scaled(), torch.zeros(3, 5), "other").verdict == "failed"
    with pytest.raises(ValueError, match=r"Scaled.forward: how: verify cannot make one .* give how="):
        verify(Scaled())


def test_arguments_without_default_that_have_few_values_have_each():
    class Cut(nn.Module):
        @contract
        def forward(
            self,
            keep: bool,
            x: Float[Tensor, "batch time"],
            how: Literal["all", "rest"],
            mask: Bool[Tensor, "time"] | None,
        ) -> Float[Tensor, "batch time"]:
            x = x if mask is None else x * mask
            return x if keep or how == "all" else x[1:]

    proof = verify(Cut())
    assert proof.verdict == "failed"
    assert "how='rest'" in str(proof)
    assert verify(Cut(), True)
    kept = verify(Cut(), how="all")
    assert kept
    assert "keep is False or True" in kept.assumptions


def test_tensors_in_records_that_are_given_meet_parameters():
    class Summed(nn.Module):
        def __init__(self, outputs: int):
            super().__init__()
            self.linear = nn.Linear(8, outputs)

        @contract
        def forward(
            self, x: Float[Tensor, "batch 8"], more: dict[str, list[Float[Tensor, "rows 8"]]]
        ) -> Float[Tensor, "batch 8"]:
            return self.linear(x) + self.linear(more["rows"][0]).sum(0)

    more = {"rows": [torch.zeros(3, 8)]}
    assert verify(Summed(8), more=more)
    failed = verify(Summed(7), more=more)
    assert failed.verdict == "failed"
    assert "axis 1 is 7; expected 8" in failed.message
    assert "hint" not in failed.message
    assert more["rows"][0].device.type == "cpu"


def test_ints_are_sizes():
    class Padded(nn.Module):
        @contract
        def forward(self, x: Float[Tensor, "batch time"], total: int) -> Float[Tensor, "batch {total}"]:
            return x.new_zeros(x.shape[0], total)

    assert verify(Padded())


def test_bare_annotations_are_contracts_and_jaxtyped_ones_too():
    class Inner(nn.Module):
        def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
            return x[:, 1:]

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        @jaxtyped(typechecker=None)
        def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch _ 8"]:
            return self.inner(x)

    proof = verify(Outer())
    assert proof.verdict == "failed"
    assert "inner in Outer: Inner.forward: the result: time is time-1; expected time" in proof.message


def test_attached_contracts():
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
    attach(module, "batch time 8 -> batch time 6")
    attach(module[0], "batch time 8 -> batch time 6")
    proof = verify(module)
    assert proof
    assert {each.path for each in proof.contracts} == {"", "0"}
    assert len(module._forward_hooks) == 1
    attach(module[1], "batch time 6 -> batch time 5")
    assert "1 in Sequential" in verify(module).message


def test_a_module_without_a_contract_is_refused():
    with pytest.raises(ValueError, match=r"Linear.forward has no contract: annotate .* attach\(module"):
        verify(nn.Linear(8, 6))


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (lambda: torch.jit.script(nn.Linear(8, 6)), "Holder: part is what torch.jit has made"),
        (lambda: torch.jit.trace(nn.Linear(8, 6), torch.zeros(2, 8)), "Holder: part is what torch.jit has made"),
        (lambda: nn.Sequential(nn.LazyLinear(6)), r"Holder: part.0 \(LazyLinear\) has tensors without a shape"),
    ],
    ids=["scripted", "traced", "lazy"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_parts_that_cannot_run_without_data_are_refused_by_name(part, told):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = part()

        @contract
        def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 6"]:
            return self.part(x)

    with pytest.raises(ValueError, match=told):
        verify(Holder())


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="tiem is none of batch, time, x"):
        verify(Double(), where=("tiem >= 2",))
    with pytest.raises(ValueError, match="no size is left by 'time <= 0'"):
        verify(Double(), where=("time <= 0",))
    with pytest.raises(ValueError, match="takes 1 positional arguments; 2 were given"):
        verify(Double(), torch.zeros(1), torch.zeros(1))

    class Locked(Double):
        def __deepcopy__(self, memo: Any) -> "Locked":
            raise RuntimeError("it is locked")

    with pytest.raises(ValueError, match="this module cannot be copied: it is locked"):
        verify(Locked())


def test_conditions_between_axes():
    class Windows(nn.Module):
        @contract(where=("size <= time",))
        def forward(self, x: Float[Tensor, "batch time"], y: Float[Tensor, "size"]) -> Float[Tensor, "batch size"]:
            return x[:, : y.shape[0]] + y

    proof = verify(Windows())
    assert proof.verdict in ("proven", "not provable"), str(proof)


class Everything(nn.Module):
    """Has all that verify must leave alone."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.5)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.table = torch.ones(8)
        self.seen: list[Any] = []

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        self.seen.append(x)
        return self.dropout(self.norm((x * self.table).transpose(1, 2)).transpose(1, 2)) + self.lstm(x)[0]


def test_it_touches_nothing():
    module = Everything()
    module.norm.eval()
    hook = module.norm.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(module.state_dict())
    identities = {name: id(value) for name, value in module.state_dict(keep_vars=True).items()}
    random = torch.get_rng_state()
    hooks = {name: list(part._forward_hooks) for name, part in module.named_modules()}
    modes = {name: part.training for name, part in module.named_modules()}
    with checks("off"):
        assert verify(module).verdict == "proven"
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert {name: id(value) for name, value in module.state_dict(keep_vars=True).items()} == identities
    assert torch.equal(torch.get_rng_state(), random)
    assert {name: list(part._forward_hooks) for name, part in module.named_modules()} == hooks
    assert {name: part.training for name, part in module.named_modules()} == modes
    assert module.seen == []
    assert not any("forward" in vars(part) for part in module.modules())
    hook.remove()
    module(torch.zeros(2, 3, 8))


def test_a_module_on_meta_or_of_another_dtype():
    proof = verify(TwoTowers(device="meta"))
    assert proof
    assert (proof.tried, proof.untried) == (0, "it is on the meta device and has no values")
    assert "not tried with real tensors: it is on the meta device" in str(proof)
    assert verify(TwoTowers(dtype=torch.float64))


def test_the_device_of_the_code_does_not_matter():
    class Moving(nn.Module):
        @contract
        def forward(self, x: Float[Tensor, "batch 8"], ids: Int[Tensor, "batch"]) -> Float[Tensor, "batch 8"]:
            start = torch.zeros(x.shape[0], 8, device="cuda")
            return start + x.cuda() + ids.to("cuda", torch.float32).unsqueeze(1).to(x)

    assert verify(Moving())


def test_a_proof_as_json():
    data = json.loads(json.dumps(verify(Even()).to_json()))
    assert data["verdict"] == "holds if"
    assert data["proven"] is False
    assert data["conditions"] == ["time % 2 == 0"]
    assert data["contracts"][0]["contract"] == "Even.forward"
    assert data["trace"][0]["came"] == "(batch, time, 8)"


def test_a_proof_is_a_table_within_100_columns():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a_long_name_of_a_module_that_has_a_contract = TwoTowers()

        @contract
        def forward(
            self, x: Float[Tensor, "batch time 300"], y: Float[Tensor, "batch 5 300"]
        ) -> Float[Tensor, "batch"]:
            return self.a_long_name_of_a_module_that_has_a_contract(x, y)

    proof = verify(Wide())
    assert isinstance(proof, Proof)
    assert proof.verdict == "holds if"
    assert proof.conditions == ("time >= 2",)
    assert max(map(len, str(proof).splitlines())) <= 100


def test_importing_contracts_does_not_import_what_proves(forks: Forks):
    code = "import sys, towers.contracts; print('torch.fx.experimental.symbolic_shapes' in sys.modules, [m for m in sys.modules if 'proofs' in m])"
    run = forks.run([forks.with_torch, "-c", code])
    assert run.stdout.split(" ", 1)[1].strip() == "[]"


def test_what_torch_compile_makes_runs_eagerly():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.compile(nn.Linear(4, 4))

        @contract
        def forward(self, x: Float[Tensor, "batch time 4"]) -> Float[Tensor, "batch time 4"]:
            return self.inner(x)

    proof = verify(Holder())
    assert proof, str(proof)
    assert any("torch.compile" in text for text in proof.assumptions)
    assert verify(torch.compile(Holder())).module == "Holder"
