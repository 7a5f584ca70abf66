"""Where a module holds that does not hold everywhere: the condition is right at every size, and no narrower than needed."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers.contracts import ShapeContractError, contract, trace, verify


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


@pytest.mark.parametrize(("wrong", "text"), CASES, ids=[text for _, text in CASES])
def test_the_condition(wrong, text):
    module = Cuts(wrong)
    proof = verify(module)
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
    proof = verify(Half())
    assert (proof.verdict, proof.conditions) == ("holds if", ("high % 2 == 0",))
    assert "high/2 is (high+1)/2; expected no whole number (high as in x)" in str(proof)


def test_conditions_are_a_text_or_several():
    assert verify(Half(), where=["high % 2 == 0", "batch <= 9"])
    assert str(trace(Half(), where="high % 2 == 0"))
    with pytest.raises(TypeError, match=r"verify: where is 3; expected a text such as 'words >= 2', or several"):
        verify(Half(), where=3)
    with pytest.raises(TypeError, match=r"trace: where is 3; expected a text"):
        trace(Half(), where=3)
