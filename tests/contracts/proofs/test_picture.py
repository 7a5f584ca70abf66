"""The picture of a run: which boxes there are, where they stand, which edges go between them, and what is red."""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers import RaggedLSTM, TwoTowers
from towers.cli import main
from towers.contracts import attach, contract, trace, verify
from towers.contracts.proofs.picture import MOST_BOXES, Box, laid_out

SVG = "{http://www.w3.org/2000/svg}"
RED, BLUE = "#cf222e", "#0550ae"


def texts(svg: str, colour: str = "") -> list[str]:
    """The texts of a picture, in order; those of one colour."""
    found = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return [one.text or "" for one in found if colour in ("", one.get("fill"))]


def names(found) -> set[tuple[str, str]]:
    """The edges of a picture by the titles of their boxes."""
    _, edges = laid_out(found)
    return {(edge.source.title, edge.target.title) for edge in edges}


class Residual(nn.Module):
    def __init__(self, width: int = 8, out: int = 8):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out)
        self.act = nn.ReLU()

    @contract
    def forward(self, x: Float[Tensor, "batch 8 height width"]) -> Float[Tensor, "batch 8 height width"]:
        return self.act(self.norm2(self.conv2(self.act(self.norm1(self.conv1(x))))) + x)


def test_a_residual_block_is_a_row_of_boxes_with_an_edge_past_them():
    found = trace(Residual())
    whole, edges = laid_out(found)
    boxes = list(whole.leaves())
    assert [box.title for box in boxes] == ["x", "conv1", "norm1", "act", "conv2", "norm2", "act", "result"]
    assert all(left.x + left.port + left.width < right.x for left, right in pairwise(boxes))
    pairs = {(boxes.index(edge.source), boxes.index(edge.target)) for edge in edges}
    assert pairs == {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (0, 6), (6, 7)}
    assert texts(found.to_svg(), BLUE)[:4] == ["batch", "8", "height", "width"]
    assert RED not in found.to_svg()


def test_the_towers_stand_one_above_the_other_and_meet():
    found = trace(TwoTowers())
    pairs = names(found)
    assert {("left", "conv"), ("right", "conv"), ("conv", "pool"), ("pool", "lstm"), ("lstm", "pair_features")} < pairs
    assert {("dense", "logit"), ("logit", "result")} < pairs
    whole, _ = laid_out(found)
    left, right, compare = (next(box for box in whole.inner if box.inner and box.title == name)
                            for name in ("left", "right", "compare"))  # fmt: skip
    assert left.y + left.height < right.y
    assert left.x == right.x
    assert compare.x > max(left.x + left.width, right.x + right.width)
    shown = texts(found.to_svg())
    assert "left_words-1" in shown
    assert "steps" in shown
    assert shown[0] == "left"


def test_the_edge_that_fails_is_red_with_its_reason():
    model = TwoTowers()
    model.left.lstm = RaggedLSTM(7, 6)
    found = trace(model)
    _, edges = laid_out(found)
    assert [(edge.source.title, edge.target.title) for edge in edges if edge.failed] == [("pool", "lstm")]
    red = texts(found.to_svg(), RED)
    assert red[:2] == ["8", "7"]
    assert " ".join(red[2:4]) == "input_size is 8; expected 7 (self.input_size)"
    assert red[-1].split() == ["input_size", "7", "8", "<-", "self.input_size"]


def test_a_result_that_fails_and_an_error_of_torch_are_red_too():
    found = trace(Residual(out=6).eval())
    [box] = [leaf for leaf in laid_out(found)[0].leaves() if leaf.failed]
    assert box.title == "raised here"  # 6 and 8 channels cannot be added
    assert [edge.source.title for edge in laid_out(found)[1] if edge.failed] == ["norm2"]
    wide = nn.Sequential(nn.Linear(8, 9), nn.Linear(8, 8))
    attach(wide, "batch 8 -> batch 8")
    found = trace(wide)
    [edge] = [edge for edge in laid_out(found)[1] if edge.failed]
    assert (edge.source.title, edge.target.title) == ("0", "1")
    narrow = nn.Linear(8, 9)
    attach(narrow, "batch 8 -> batch 8")
    assert texts(verify(narrow).to_svg(), RED)[:2] == ["9", "8"]


def test_a_deep_network_is_opened_as_far_as_it_fits_and_where_it_fails():
    def deep(last: int) -> nn.Module:
        blocks = [nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(6)]
        module = nn.Sequential(*blocks, nn.Sequential(nn.Linear(8, 8), nn.Linear(last, 8)))
        attach(module, "batch 8 -> batch 8")
        return module

    sound, broken = trace(deep(8)), trace(deep(7))
    assert len(list(laid_out(sound)[0].leaves())) <= MOST_BOXES + 2
    [box] = [leaf for leaf in laid_out(broken)[0].leaves() if leaf.failed]
    assert box.title == "1"
    many = nn.Sequential(*(nn.Linear(8, 8) for _ in range(60)))
    attach(many, "batch 8 -> batch 8")
    titles = [leaf.title for leaf in laid_out(trace(many))[0].leaves()]
    assert "… 46 more" in titles
    assert len(names(trace(many))) == len(titles) - 1


def test_no_two_boxes_overlap():
    encoder = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    attach(encoder, "batch time 8 -> batch time 8")
    for found in (trace(encoder), trace(TwoTowers()), trace(Residual())):
        boxes = list(laid_out(found)[0].leaves())
        for at, one in enumerate(boxes):
            assert not any(overlap(one, other) for other in boxes[:at])


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.size[0] and other.x < one.x + one.size[0]
        and one.y < other.y + other.size[1] and other.y < one.y + one.size[1]
    )  # fmt: skip


def test_names_are_text_not_markup():
    class Odd(nn.Linear): ...

    Odd.__name__ = "<b>&"
    odd = Odd(2, 2)
    attach(odd, "batch 2 -> batch 2")
    assert "<b>&" in texts(trace(odd).to_svg())
    assert "<b>&" not in verify(odd)._repr_html_()


def test_notebooks_and_proofs():
    proof = verify(Residual().eval())
    assert proof.verdict == "proven"
    assert texts(proof.to_svg())[-3].startswith("Residual: proven, for all batch >= 1")
    assert proof._repr_html_().startswith('<div style="overflow-x: auto"><svg')
    assert trace(Residual())._repr_html_().count("<svg") == 1


def test_the_command(tmp_path, capsys):
    picture = tmp_path / "linear.svg"
    code = main(["verify", f"{__name__}:NARROW", "--contract", "batch 8 -> batch 8", "--picture", str(picture)])
    assert code == 1
    assert texts(picture.read_text("utf8"), RED)[:2] == ["9", "8"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["verify", f"{__name__}:NARROW", "--picture", "linear.png"])


NARROW = nn.Linear(8, 9)


def test_an_in_place_sum_and_a_list_of_tensors_keep_their_sources():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 4)

        @contract
        def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
            parts = [self.one(x), self.two(x)]
            whole = self.out(torch.cat(parts, 1))
            whole += x
            return whole

    assert names(trace(Joined())) == {
        ("x", "one"), ("x", "two"), ("one", "out"), ("two", "out"), ("out", "result"), ("x", "result")
    }  # fmt: skip
