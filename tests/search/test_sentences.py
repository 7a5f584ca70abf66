"""An index of a loaded model takes sentences, and its scores are those of the model's `score`."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from tests.test_answers import LEFT, RIGHT, save_model
from tests.test_answers import folder as folder

import towers
from towers.answers import Model
from towers.scale import Shards
from towers.search import Index
from towers.training.presets import PRESETS, build

KINDS = {
    "degrees": (1, {"label_range": [1, 5]}),
    "bins": (5, {"label_range": [1, 5]}),
    "classes": (3, {"classes": ["no", "perhaps", "yes"]}),
}


@pytest.fixture(params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    outputs, data = KINDS[request.param]
    torch.manual_seed(1)
    save_model(str(tmp_path / "run"), build(PRESETS["small"], vector_width=7, outputs=outputs), **data)
    return towers.load(tmp_path / "run")


@pytest.mark.parametrize("side", ["right", "left"])
def test_scores_are_those_of_score(loaded: Model, side: str, tmp_path: Path):
    name = None if loaded.classes is None else "perhaps"
    items, queries = (RIGHT, LEFT) if side == "right" else (LEFT, RIGHT)
    wanted = loaded.similarity(LEFT, RIGHT, class_name=name)
    wanted = wanted if side == "right" else wanted.T
    index = Index(loaded, side, class_name=name)
    index.add(iter(items[:1]))
    index.add([item.split() for item in items[1:]], torch.arange(1, len(items)))
    index.save(tmp_path / "index")
    for own in (index, Index.load(tmp_path / "index", loaded, class_name=name)):
        scores, ids = own.search(queries, len(items))
        torch.testing.assert_close(scores, wanted.gather(1, ids), atol=2e-6, rtol=0)
        assert bool((scores.diff(dim=1) <= 0).all())
        states = loaded.encode(queries, side="left" if side == "right" else "right")
        for found, expected in zip(own.search(states, len(items)), (scores, ids), strict=True):
            assert torch.equal(found, expected)


def test_pairs_from_a_score_on(loaded: Model):
    name = None if loaded.classes is None else "yes"
    index = Index(loaded, class_name=name)
    index.add(RIGHT)
    states = loaded.encode(RIGHT, side="right")
    every, ids = index.all_pairs(threshold=-9.0)
    assert len(every) == len(RIGHT) * (len(RIGHT) - 1)
    wanted = loaded.similarity(states, states, class_name=name)[ids[:, 0], ids[:, 1]]
    torch.testing.assert_close(every, wanted, atol=2e-6, rtol=0)
    for count, least in enumerate(every.tolist(), 1):
        scores, found = index.all_pairs(threshold=least)
        assert len(scores) >= count
        assert torch.equal(scores, every[every >= least])
        assert torch.equal(found, ids[every >= least])
    assert len(index.all_pairs(threshold=9.0)[0]) == 0


def test_the_class_is_named(folder: Path):
    save_model("classes", build(PRESETS["small"], vector_width=7, outputs=2), classes=["no", "yes"])
    classes, degrees = towers.load("classes"), towers.load(folder)
    for call, said in (
        (lambda: Index(classes), "this model answers with classes (no, yes); class_name is missing"),
        (lambda: Index(classes, class_name="maybe"), "class_name ('maybe') is none of them"),
        (lambda: Index(classes, output=1), "Index: output is 1; of a loaded model say class_name"),
        (lambda: Index(degrees, class_name="yes"), "this model answers with a score, and has no classes"),
        (lambda: Index(degrees.network, class_name="yes"), "Index: class_name is 'yes'; a TwoTowers knows no names"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            call()


def test_what_is_refused(folder: Path):
    loaded = towers.load(folder)
    with pytest.raises(ValueError, match=r"model is Linear; expected a TwoTowers, or what towers\.load gives"):
        Index(torch.nn.Linear(3, 4))
    plain, index = Index(loaded.network), Index(loaded)
    with pytest.raises(ValueError, match=r"Index.add: items is no tensor of states; sentences need Index\(towers.load"):
        plain.add(RIGHT)
    plain.add(torch.zeros(2, loaded.network.hidden))
    with pytest.raises(ValueError, match=r"Index.search: queries is no tensor of states"):
        plain.search(LEFT, 1)
    for sentences in (RIGHT[0], [RIGHT[0], 7], [RIGHT[0], ""]):
        with pytest.raises(ValueError, match="sentence"):
            index.add(sentences)
    with pytest.raises(towers.ShapeContractError, match="items"):
        index.add(RIGHT, torch.tensor([1]))
    assert len(index) == 0
    with pytest.raises(ValueError, match="Shards: an index has a loaded model"):
        Shards([index])


def test_the_least_number_of_a_score(folder: Path):
    save_model(
        "wide", towers.TwoTowers(towers.Tower(vector_width=7), towers.Tower(vector_width=7)), label_range=[-3, 90]
    )
    for name in (folder, "wide"):
        loaded = towers.load(name)
        ranked = torch.linspace(-20, 20, 4001)
        scores = loaded.scores_of(ranked)
        for number, score in itertools.islice(zip(ranked.tolist(), scores.tolist(), strict=True), 0, None, 7):
            assert loaded.ranked_of(score) <= number


def test_an_index_knows_the_word_vectors_of_its_sentences(loaded: Model, tmp_path: Path):
    name = {} if loaded.classes is None else {"class_name": "yes"}
    index = Index(loaded, **name)
    index.add(RIGHT)
    index.save(tmp_path / "index", about={"corpus": "mine"})
    again = Index.load(tmp_path / "index", loaded, **name)
    assert again.about == {"corpus": "mine", "vectors": loaded.vectors_digest}
    mine = loaded._predictor.vectors
    words = list(mine.known)
    for names, table in ((words, mine.gather(words) + 1e-3), (words[:-1], mine.gather(words[:-1]))):
        others = towers.data.WordVectors(names, table)
        other = Model(loaded.network, others, label_range=loaded.label_range, classes=loaded.classes)
        with pytest.raises(ValueError, match="index: its sentences were encoded with other word vectors"):
            Index.load(tmp_path / "index", other, **name)
    assert len(Index.load(tmp_path / "index", loaded.network)) == len(RIGHT)  # a network reads no sentences
