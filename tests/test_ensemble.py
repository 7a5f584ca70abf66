"""Several models as one: the mean of their probabilities, in one folder, on the command line."""

import copy
import json
from pathlib import Path

import pytest
import torch

import towers
from towers import PairHead, Tower, TwoTowers
from towers.cli import main
from towers.contracts import verify
from towers.ensemble import Ensemble, load_network

FILES = ["--train", "pairs.tsv", "--dev", "pairs.tsv", "--vectors", "vectors.txt", "--epochs", "1", "--device", "cpu"]


def model(seed, outputs=1, second=False):
    torch.manual_seed(seed)
    tower = Tower(vector_width=5, filters=None, hidden=3, bidirectional=True, reduce="max", word_maximum=2)
    head = PairHead(tower.width, outputs=3) if second else None
    features = ("absolute difference", "product")
    return TwoTowers(tower, tower, features=features, outputs=outputs, second=head, word_dropout=0.1).eval()


@pytest.mark.parametrize("outputs", [1, 4])
def test_an_ensemble_answers_with_the_mean_of_the_probabilities(outputs, tmp_path):
    members = [model(seed, outputs, second=True) for seed in range(3)]
    together = Ensemble(members)
    left, right = torch.randn(4, 6, 5), torch.randn(4, 3, 5)
    wanted = torch.stack([member.probability(left, right) for member in members]).mean(0)
    torch.testing.assert_close(together.probability(left, right), wanted)
    states = together.encode_left(left), together.encode_right(right)
    assert states[0].shape == (4, together.hidden) == (4, 24)
    torch.testing.assert_close(together.compare(*states), together(left, right))
    assert together.compare(states[0][:, None], states[1]).shape[:2] == (4, 4)
    seconds = torch.stack([member.second(*member.states(left, right)).softmax(-1) for member in members]).mean(0)
    torch.testing.assert_close(together.second(*states).softmax(-1), seconds)
    together.save(tmp_path)
    again = load_network(tmp_path).eval()
    assert isinstance(again, Ensemble)
    assert torch.equal(again(left, right), together(left, right))
    copied = copy.deepcopy(again).double()
    assert copied.left is copied.members[0].left
    assert copied(left.double(), right.double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r": holds an ensemble, .* towers\.load.* gives its members"):
        TwoTowers.load(tmp_path)


def test_members_must_fit_each_other():
    with pytest.raises(ValueError, match="Ensemble: members is empty"):
        Ensemble([])
    with pytest.raises(
        ValueError, match=r"members\[1\] takes other sentences, or has other outputs, than members\[0\]"
    ):
        Ensemble([model(0), model(1, 4)])
    with pytest.raises(ValueError, match=r"members\[2\] is members\[0\] again; a copy\.deepcopy of it may"):
        Ensemble([one := model(0), model(1), one])


def test_members_that_share_a_tower_are_saved(tmp_path):
    one = model(0)
    together = Ensemble([one, TwoTowers(one.left, one.right, dense=3)]).eval()
    together.save(tmp_path)
    left, right = torch.randn(2, 6, 5), torch.randn(2, 4, 5)
    assert torch.equal(load_network(tmp_path).eval()(left, right), together(left, right))


def test_fit_trains_an_ensemble_into_one_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"a cat sits{' not' * (n % 2)}\ta dog sits\t{n % 2}" for n in range(12)]
    Path("pairs.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n")
    Path("vectors.txt").write_text("a 1 2 3\ncat 2 1 0\nsits 0 1 1\ndog 1 1 1\nnot 3 0 1\n")
    assert main(["fit", "--preset", "small", "--ensemble", "2", *FILES, "--seed", "3", "--out", "two"]) == 0
    assert main(["fit", "--preset", "small", *FILES, "--seed", "4", "--out", "one"]) == 0
    ensemble, single = towers.load("two"), towers.load("one")
    members = ensemble.network.members
    for name, weight in single.network.state_dict().items():
        torch.testing.assert_close(members[1].state_dict()[name], weight, msg=name)
    left, right = "a cat sits", "a dog sits not"
    scores = []
    for member in members:
        alone = copy.deepcopy(single)
        alone.network.load_state_dict(member.state_dict())
        scores.append(alone.score(left, right))
    assert ensemble.score(left, right) == pytest.approx(sum(scores) / 2, abs=1e-5)
    effects = {(side, place): effect for side, place, _, effect in ensemble.explain(left, right)}
    assert effects["left", 1] == pytest.approx(ensemble.score(left, right) - ensemble.score("a sits", right), abs=1e-5)
    sentences = [right, "a dog", "a cat sits not"]
    Path("in.txt").write_text("\n".join(sentences))
    Path("query.txt").write_text(left)
    search = ["search", "--model", "two", "--corpus", "in.txt", "--queries", "query.txt", "-k", "3"]
    assert main([*search, "--out", "f.jsonl"]) == 0
    found = {row["id"]: row["score"] for row in map(json.loads, Path("f.jsonl").read_text().splitlines())}
    wanted = {line: ensemble.score(left, sentence) for line, sentence in enumerate(sentences, 1)}
    assert found == pytest.approx(wanted, abs=1e-5)
    assert list(found) == sorted(wanted, key=lambda line: -wanted[line])
    assert ensemble.most_similar(left, sentences)[0].tolist() == pytest.approx(list(found.values()), abs=1e-5)
    assert main(["predict", "--model", "two", "--pairs", "pairs.tsv", "--out", "p.tsv"]) == 0
    metrics = json.loads(Path("two/metrics.json").read_text())
    assert len(metrics["members"]) == 2
    assert "loss" in metrics["together"]["dev"]
    capsys.readouterr()
    assert main(["fit", "--resume", "two", "--epochs", "3"]) == 2
    assert "an ensemble is trained in one go and cannot be resumed" in capsys.readouterr().err


def test_the_card_of_an_ensemble_names_its_parts(tmp_path, monkeypatch):
    # The proof of two networks takes ten seconds, and twenty end it; here one does.
    monkeypatch.setattr("towers.contracts.verify", lambda network, seconds: verify(network, seconds=1))
    Ensemble([model(0, 4), model(1, 4)]).save_pretrained(tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "in 2 networks of these sizes, which answer together" in card
    assert "| word_maximum | 2 |" in card
    assert "no convolution" in card
    assert "## Shape contracts\n\n`towers.contracts.verify`: **" in card


def test_a_second_head_of_one_output_has_the_mean_of_the_sigmoids():
    members = [model(seed, second=True) for seed in range(2)]
    for member in members:
        member.second = PairHead(member.hidden, outputs=1)
    width = members[0].left.vector_width
    states = Ensemble(members).states(torch.randn(3, 4, width), torch.randn(3, 5, width))
    halves = [
        member.second(*sides).sigmoid()
        for member, *sides in zip(members, *(side.chunk(2, 1) for side in states), strict=True)
    ]
    torch.testing.assert_close(Ensemble(members).second(*states).sigmoid(), (halves[0] + halves[1]) / 2)
