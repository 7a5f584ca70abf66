"""WordTable: every layer gives from kept products the numbers that it gives from vectors, whatever changes between."""

import copy
import threading

import pytest
import torch
from torch import nn

from towers import PhraseConv, Ragged, RaggedLSTM, Tower, WordFeatures, WordMap
from towers.kernels import cpu
from towers.layers.word_table import WordTable

OFFSETS = torch.tensor([0, 5, 5, 12, 23])
in_c = pytest.mark.skipif(cpu.why_not() is not None, reason=str(cpu.why_not()))


def words_of(vectors: torch.Tensor, limit: int = 50) -> tuple[WordTable, torch.Tensor]:
    words = WordTable(limit, vectors)
    return words, words.add(vectors)


@in_c
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("bias", [True, "single", False])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one direction", "both"])
@torch.no_grad()
def test_an_lstm_gives_the_bits_that_it_gives_from_vectors(bidirectional, bias, dtype):
    for hidden in (3, 6, 17, 100):
        lstm, vectors = RaggedLSTM(7, hidden, bias=bias, bidirectional=bidirectional, dtype=dtype), torch.randn(50, 7)
        for parameter in lstm.parameters():
            parameter.normal_()
        words, table = words_of(vectors[:20].to(dtype))
        state = torch.randn(2, 1 + bidirectional, 4, hidden, dtype=dtype)
        for count, hx in ((20, None), (20, tuple(state)), (50, None)):
            if count == 50:
                table = words.add(vectors[20:].to(dtype))
            ids = torch.randint(0, count, (23,))
            found, ends = lstm(Ragged.unchecked(ids, OFFSETS, table=table), hx)
            wanted, wanted_ends = lstm(Ragged.unchecked(table[ids], OFFSETS), hx)
            assert torch.equal(found.values, wanted.values)
            assert all(map(torch.equal, ends, wanted_ends))
            assert torch.equal(lstm.last(Ragged.unchecked(ids, OFFSETS, table=table), hx), wanted_ends[0])


@in_c
@torch.no_grad()
def test_ids_of_a_plain_table_give_the_same_bits_whichever_way(monkeypatch):
    from towers.kernels.cpu import layer_call

    sums_of_words, counts, distinct = layer_call.sums_of_words, list[int](), list[int]()
    monkeypatch.setattr(
        layer_call, "sums_of_words", lambda how, rows: counts.append(len(rows)) or sums_of_words(how, rows)
    )
    for bidirectional, rows, tokens in (
        (False, 10, 70),
        (True, 10, 70),
        (True, 5000, 70),
        (True, 60, 70),
        (True, 3, 20),
    ):
        lstm, table = RaggedLSTM(7, 6, bidirectional=bidirectional), torch.randn(rows, 7)
        ids, offsets = torch.randint(rows, (tokens,)), torch.tensor([0, 0, 9, tokens])
        distinct += [len(ids.unique())] if rows == 10 else []
        found, ends = lstm(Ragged(ids, offsets, table=table))
        wanted, wanted_ends = lstm(Ragged(table[ids], offsets))
        assert torch.equal(found.values, wanted.values)
        assert all(map(torch.equal, ends, wanted_ends))
    short = Ragged.unchecked(torch.randint(10, (70,)).int(), torch.tensor([0, 70]), table=torch.randn(10, 7))
    assert torch.equal(lstm(short)[1][0], lstm(short.vectors())[1][0])
    assert counts == distinct  # elsewhere most words stand there once, or there are few
    with pytest.raises(IndexError):
        lstm(Ragged.unchecked(torch.tensor([-1] * 70), torch.tensor([0, 70]), table=table))


TOWERS = {
    "both directions": {"filters": None, "hidden": 5, "bidirectional": True, "reduce": "max", "word_maximum": 4},
    "no LSTM": {"filters": None, "hidden": None, "word_maximum": 4, "word_mean": 3},
    "a convolution": {"filters": 8, "hidden": 3, "word_mean": 3},
    "a map": {"filters": None, "word_map": 6, "word_maximum": 4},
    "the usual one": {},
}


@pytest.mark.parametrize("options", TOWERS.values(), ids=TOWERS.keys())
@torch.no_grad()
def test_every_tower_takes_it(options):
    tower, vectors = Tower(vector_width=7, **options), torch.randn(30, 7)
    words, table = words_of(vectors)
    for offsets in (torch.tensor([0, 3, 23]), torch.tensor([0, 2, 70])):
        ids = torch.randint(0, 30, (int(offsets[-1]),))
        wanted = tower(Ragged.unchecked(vectors[ids], offsets))
        torch.testing.assert_close(tower(Ragged.unchecked(ids, offsets, table=table)), wanted, rtol=1e-5, atol=1e-6)
    assert len(words) == 30


def multiplied(lstm: RaggedLSTM, words: WordTable, table: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many words are multiplied in a call, after the same call has come before."""
    from towers.kernels.cpu import layer_call

    counts, sums_of_words = list[int](), layer_call.sums_of_words
    with monkeypatch.context() as patch:
        patch.setattr(
            layer_call, "sums_of_words", lambda how, rows: counts.append(len(rows)) or sums_of_words(how, rows)
        )
        with torch.no_grad():
            lstm(Ragged.unchecked(torch.arange(10), torch.tensor([0, 4, 10]), table=table))
    return counts


@in_c
def test_a_word_is_multiplied_once_until_the_weights_change(monkeypatch):
    lstm, (words, table) = RaggedLSTM(7, 5), words_of(torch.randn(10, 7))
    assert [multiplied(lstm, words, table, monkeypatch) for _ in range(2)] == [[10], []]
    table = words.add(torch.randn(3, 7))
    assert multiplied(lstm, words, table, monkeypatch) == [3]
    with torch.no_grad():
        lstm.weight_ih_l0.mul_(2)
    assert multiplied(lstm, words, table, monkeypatch) == [13]
    for change in (
        lambda weight: weight.mul_(2),
        lambda weight: weight[3, 5].add_(1e-6),  # one number of 140, as little as it can be
        lambda weight: weight[7:10:2].copy_(weight[7:10:2].flip(0)),
        lambda weight: weight.neg_(),
    ):
        change(lstm.weight_ih_l0.data)  # which torch does not count
        assert multiplied(lstm, words, table, monkeypatch) == [13]
    lstm.weight_ih_l0.data = torch.randn(20, 7)
    assert multiplied(lstm, words, table, monkeypatch) == [13]
    lstm.bias_hh_l0 = nn.Parameter(torch.randn(20))
    assert multiplied(lstm, words, table, monkeypatch) == [13]
    lstm.weight_hh_l0.data.mul_(2)  # which no product depends on
    assert multiplied(lstm, words, table, monkeypatch) == []


def test_with_gradients_nothing_is_kept():
    for layer in (RaggedLSTM(7, 5), WordFeatures(7, 4), PhraseConv(7, 4, 1), WordMap(7, 4)):
        vectors = torch.randn(10, 7)
        _, table = words_of(vectors)
        ids = torch.randint(0, 10, (23,))
        offsets = torch.tensor([0, 5, 12, 23])
        found, wanted = (
            layer(Ragged.unchecked(ids, offsets, table=table)),
            layer(Ragged.unchecked(vectors[ids], offsets)),
        )
        if isinstance(found, tuple):
            found, wanted = found[0], wanted[0]
        if isinstance(found, Ragged):
            found, wanted = found.vectors().values, wanted.vectors().values
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        weights = list(layer.parameters())
        for one, other in zip(
            torch.autograd.grad(found.square().sum(), weights),
            torch.autograd.grad(wanted.square().sum(), weights),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@in_c
@torch.no_grad()
def test_ids_beyond_the_table_are_refused_and_nothing_is_read():
    lstm, (_, table) = RaggedLSTM(7, 5), words_of(torch.randn(10, 7))
    for wrong in (10, -1, 2**40):
        with pytest.raises(IndexError):
            lstm(Ragged.unchecked(torch.tensor([1, wrong, 3]), torch.tensor([0, 3]), table=table))


def test_there_is_room_for_so_many_and_a_table_outlives_its_products():
    words, table = words_of(torch.randn(10, 7), limit=12)
    with pytest.raises(ValueError, match="room for 12 rows; 10 are there, 3 more came"):
        words.add(torch.randn(3, 7))
    first = table.clone()
    words.add(torch.randn(2, 7))
    assert len(words) == 12
    assert torch.equal(table, first)
    del words
    assert WordTable.of(table) is None
    lstm = RaggedLSTM(7, 5)
    ids, offsets = torch.tensor([1, 2, 3]), torch.tensor([0, 3])
    with torch.no_grad():
        found = lstm(Ragged.unchecked(ids, offsets, table=table))[1][0]
        torch.testing.assert_close(found, lstm(Ragged.unchecked(table[ids], offsets))[1][0])


@in_c
@torch.no_grad()
def test_threads_may_use_one():
    lstm, vectors = RaggedLSTM(7, 5, bidirectional=True), torch.randn(400, 7)
    words = WordTable(400, vectors)
    tables = [words.add(vectors[:1])]
    wanted, wrong = lstm(Ragged.unchecked(vectors[:1], torch.tensor([0, 1])))[1][0], list[object]()
    assert lstm(Ragged.unchecked(torch.tensor([0]), torch.tensor([0, 1]), table=tables[0]))[1][0].equal(wanted)

    @torch.no_grad()
    def work(first: int) -> None:
        try:
            for place in range(first, 400, 4):
                with lock:
                    at = len(words)
                    table = words.add(vectors[place : place + 1])
                ids = torch.tensor([at, 0])
                found = lstm(Ragged.unchecked(ids, torch.tensor([0, 2]), table=table))[1][0]
                if not torch.equal(found, lstm(Ragged.unchecked(table[ids], torch.tensor([0, 2])))[1][0]):
                    wrong.append(place)
        except Exception as error:
            wrong.append(error)

    lock = threading.Lock()
    threads = [threading.Thread(target=work, args=(first,)) for first in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.no_grad()
def test_copies_of_a_layer_have_products_of_their_own():
    layer, (_, table) = WordFeatures(7, 4), words_of(torch.randn(10, 7))
    sentences = Ragged.unchecked(torch.arange(10), torch.tensor([0, 10]), table=table)
    before = layer(sentences)
    other = copy.deepcopy(layer)
    other.linear.weight.mul_(2)
    assert not torch.equal(other(sentences), before)
    assert torch.equal(layer(sentences), before)
