"""Word ids with a table give what the vectors themselves give: results, gradients, and after every change."""

import copy
import pickle
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from towers import PhraseConv, Ragged, RaggedLSTM, ShapeContractError, Tower, TwoTowers, training
from towers.contracts import checks
from towers.data import SentencePairs, WordVectors
from towers.kernels import cpu
from towers.kernels.cpu import words_call
from towers.layers import fused, phrases

from .helpers import reference

WORDS = 11
SIZES = {"vector_width": 5, "filters": 12, "pool": 3, "hidden": 4}


def tower(dtype=torch.float64, **sizes) -> Tower:
    return reference.number_weights(Tower(**(SIZES | sizes), dtype=dtype))


def table(dtype=torch.float64, words=WORDS, seed=3) -> torch.Tensor:
    return torch.randn(words, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ids_of(lengths, vectors: torch.Tensor) -> Ragged:
    rows = torch.randint(len(vectors), (sum(lengths),), generator=torch.Generator().manual_seed(sum(lengths)))
    return Ragged(rows, torch.tensor([0, *lengths]).cumsum(0), table=vectors)


def close(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


LENGTHS = st.lists(st.integers(3, 9), min_size=0, max_size=6)


@settings(max_examples=40)
@given(LENGTHS, st.sampled_from([1, 2, 3]), st.sampled_from([1, 40, WORDS]), st.booleans())
def test_ids_give_what_vectors_give(lengths, kernel_words, words, learns):
    module, sentences = tower(kernel_words=kernel_words), ids_of(lengths, table(words=words))
    with torch.set_grad_enabled(learns):
        wanted = [reference.tower(row, module) for row in sentences.vectors().to_list()]
        found = module(sentences)
        close(found, torch.stack(wanted) if wanted else found.new_zeros(0, 4))
        close(found, module(sentences.vectors()))


@pytest.mark.parametrize("trained", [True, False])
def test_every_gradient_is_that_of_the_vectors(trained):
    module, lengths = tower(), [4, 3, 7]
    vectors = nn.Parameter(table(), requires_grad=trained)
    wanted_by = [*module.parameters(), vectors] if trained else list(module.parameters())
    sentences = ids_of(lengths, vectors)
    wanted = torch.autograd.grad(
        sum(reference.tower(row, module).square().sum() for row in sentences.vectors().to_list()), wanted_by
    )
    found = torch.autograd.grad(module(sentences).square().sum(), wanted_by)
    for one, other in zip(found, wanted, strict=True):
        close(one, other, 1e-11)


@pytest.mark.parametrize("kernel_words", [1, 2, 3])
def test_gradcheck_of_the_table_and_the_weights_twice(kernel_words):
    conv = PhraseConv(5, 4, kernel_words, dtype=torch.float64)
    sentences = ids_of([3, 5], table())

    def features(vectors, weight, bias):
        given = Ragged.unchecked(sentences.values, sentences.offsets, table=vectors)
        return torch.func.functional_call(conv, {"weight": weight, "bias": bias}, given).values

    inputs = (table().requires_grad_(), conv.weight, conv.bias)
    assert torch.autograd.gradcheck(features, inputs)
    assert torch.autograd.gradgradcheck(features, inputs)


def test_an_embedding_learns_as_if_its_rows_had_been_looked_up():
    ends = []
    for look_up in (False, True):
        torch.manual_seed(0)
        embedding, module = nn.Embedding(WORDS, 5, dtype=torch.float64), tower()
        optimizer = torch.optim.Adam([*module.parameters(), *embedding.parameters()], lr=0.01)
        for _ in range(5):
            sentences = ids_of([4, 6, 3], embedding.weight)
            optimizer.zero_grad()
            module(sentences.vectors() if look_up else sentences).square().sum().backward()
            optimizer.step()
        ends.append([embedding.weight, *module.parameters()])
    for one, other in zip(*ends, strict=True):
        close(one, other, 1e-9)


# What is kept.


def count_products(monkeypatch) -> list[int]:
    """A list that grows by the number of words at every product with the weights; few tokens are as many."""
    products: list[int] = []
    project, shares = PhraseConv.project, words_call.shares
    monkeypatch.setattr(fused, "FEW_TOKENS", 0)

    def counted_in_c(vectors, weight):
        found = shares(vectors, weight)
        products.extend([len(vectors)] * (found is not None))
        return found

    monkeypatch.setattr(words_call, "shares", counted_in_c)

    def counted(self, vectors):
        products.append(len(vectors))
        return project(self, vectors)

    monkeypatch.setattr(PhraseConv, "project", counted)
    return products


def test_a_batch_that_is_learned_from_multiplies_each_distinct_word_once(monkeypatch):
    products, module = count_products(monkeypatch), tower()
    sentences = Ragged(torch.tensor([7, 2, 7, 7, 2, 9]), torch.tensor([0, 3, 6]), table=table())
    module(sentences)
    module(sentences)
    assert products == [3, 3]


def test_without_gradients_the_vocabulary_is_multiplied_once(monkeypatch):
    products, module, vectors = count_products(monkeypatch), tower(), table()
    with torch.no_grad():
        for lengths in ([4, 3], [9], [3, 3, 5]):
            module(ids_of(lengths, vectors))
            module(ids_of(lengths, vectors.detach()))
    with torch.inference_mode():
        module(ids_of([3], vectors))
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module(ids_of([4], vectors))
    assert products == [WORDS]
    module.conv.forget_vocabulary()
    module(ids_of([4], vectors))
    assert products == [WORDS, WORDS]


@torch.no_grad()
def test_a_large_vocabulary_is_multiplied_some_words_at_a_time(monkeypatch):
    monkeypatch.setattr(phrases, "_WORDS", 4)
    products, module, sentences = count_products(monkeypatch), tower(), ids_of([5, 9, 3], table())
    close(module(sentences), module(sentences.vectors()))
    assert products == ([1, 4, 4, 3, 17] if cpu.why_not() else [WORDS])  # C code multiplies tokens by itself


@pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@torch.no_grad()
def test_few_ids_are_looked_up_and_nothing_is_kept_with_the_same_bits(monkeypatch, dtype):
    products, module, vectors = count_products(monkeypatch), tower(dtype), table(dtype)
    for lengths in ([4, 3], [9], [16, 16], [30, 2], [30, 3]):
        sentences = ids_of(lengths, vectors)
        kept = module(sentences)
        assert torch.equal(module(sentences.vectors()), kept)
        products.clear()
        monkeypatch.setattr(fused, "FEW_TOKENS", phrases.FEW_TOKENS)
        module.conv.forget_vocabulary()
        assert torch.equal(module(sentences), kept)
        assert products == [WORDS] * (sum(lengths) > 32)
        monkeypatch.setattr(fused, "FEW_TOKENS", 0)


def test_predict_and_fit_multiply_words_and_not_tokens(monkeypatch):
    products, letters = count_products(monkeypatch), "abcdefghijk"
    vectors = WordVectors(list(letters), table(torch.float32))
    sides = [[list("abab"), list("cdef"), list("aab"), list("ghijk")], [list("aa"), list("bb"), list("ab"), list("ba")]]
    pairs = SentencePairs(*sides, [0, 1, 0, 1]).with_vectors(vectors)
    model = TwoTowers(tower(torch.float32), tower(torch.float32), dense=7)
    training.predict(model, pairs, batch_size=1, device="cpu", progress=False)
    assert products == [WORDS, WORDS]  # once for each tower
    products.clear()
    training.fit(model, pairs, epochs=1, batch_size=1, device="cpu", progress=False)
    steps = [1, 1, 2, 2, 2, 2, 4, 5]
    assert sorted(products) == [*steps, WORDS, WORDS], "and once for each tower to see that the network answers"


def step(module, vectors):
    module.conv.weight.grad = torch.ones_like(module.conv.weight)
    torch.optim.SGD([module.conv.weight], lr=0.1).step()


CHANGES = {
    "an optimizer's step": step,
    "a write through .data": lambda module, vectors: module.conv.weight.data.mul_(3),
    "new .data": lambda module, vectors: setattr(module.conv.weight, "data", module.conv.weight.data + 1),
    "load_state_dict": lambda module, vectors: module.load_state_dict(
        {name: value + 1 for name, value in module.state_dict().items()}
    ),
    "load_state_dict, assigned": lambda module, vectors: module.load_state_dict(
        {name: value + 1 for name, value in module.state_dict().items()}, assign=True
    ),
    "another parameter": lambda module, vectors: setattr(module.conv, "weight", nn.Parameter(module.conv.weight + 1)),
    "initial values": lambda module, vectors: module.reset_parameters(),
    "bfloat16 and back": lambda module, vectors: module.bfloat16().double(),
    "the table": lambda module, vectors: vectors.mul_(3),
    "a row of the table": lambda module, vectors: vectors[2].zero_(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@torch.no_grad()
def test_after_a_change_of_weights_or_table_the_vocabulary_is_multiplied_again(change):
    module, vectors = tower(), table()
    sentences = ids_of([4, 3, 8], vectors)
    before = module(sentences)
    change(module, vectors)
    found = module(sentences)
    assert not torch.equal(found, before)
    close(found, module(sentences.vectors()))


@torch.no_grad()
def test_each_copy_and_each_table_and_each_dtype_has_its_own():
    module, sentences = tower(), ids_of([4, 3], table())
    wanted = module(sentences)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        other.conv.weight.mul_(2)
        close(other(sentences), other(sentences.vectors()))
        assert torch.equal(module(sentences), wanted)
    another = ids_of([4, 3], table(seed=4))
    close(module(another), module(another.vectors()))
    rows = table()  # a view of more of the same memory, and of less
    for part in (rows[:9], rows[1:10], rows):
        some = Ragged(torch.tensor([8, 0, 3]), torch.tensor([0, 3]), table=part)
        close(module(some), module(some.vectors()))
    single = module.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = single(sentences.to(torch.float32))
    close(coarse.float(), single(sentences.to(torch.float32)), 0.1)
    close(single(sentences.to(torch.float32)), single(sentences.vectors().to(torch.float32)), 1e-5)


@torch.no_grad()
def test_threads_with_tables_of_their_own_do_not_disturb_each_other():
    module, wrong = tower(), []

    def work(seed):
        sentences = ids_of([4, 3, 6], table(seed=seed))
        wanted = module(sentences.vectors())
        wrong.extend(seed for _ in range(50) if not torch.allclose(module(sentences), wanted, atol=1e-10))

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.inference_mode()
def test_a_table_made_in_inference_mode_is_never_kept():
    module, vectors = tower(), table()
    sentences = ids_of([4, 3], vectors)
    module(sentences)
    vectors.mul_(2)
    close(module(sentences), module(sentences.vectors()))


# Everywhere else.


def test_every_layer_takes_ids_and_says_what_it_says_of_the_vectors():
    sentences = ids_of([3, 2, 4], table())
    lstm = RaggedLSTM(5, 4, dtype=torch.float64)
    output, (h_n, _) = lstm(sentences)
    wanted, (h_wanted, _) = lstm(sentences.vectors())
    assert torch.equal(output.values, wanted.values)
    assert torch.equal(h_n, h_wanted)
    assert output.table is None


def test_pairs_of_ids_and_padding_beside_ids():
    model = reference.number_weights(TwoTowers(tower(), tower(words=5), dense=7))
    left, right = ids_of([4, 2, 7], table()), ids_of([5, 5, 5], table())
    wanted = model(left.vectors(), right.vectors())
    close(model(left, right), wanted)
    close(model(left, right.vectors().to_padded()[0]), wanted)
    for chunk in (1, 2):
        model.left.chunk = chunk
        close(model(left, right), wanted)


def test_ids_padded_listed_or_jagged_become_sentences_with_a_table():
    rows = [torch.tensor([5, 6, 7]), torch.tensor([1, 0])]
    wanted = Ragged.from_list([table()[row] for row in rows])
    padded = torch.tensor([[5, 6, 7], [1, 0, 99]])
    jagged = torch.nested.nested_tensor(rows, layout=torch.jagged)
    for made in (Ragged.from_list(rows), Ragged.from_padded(padded, torch.tensor([3, 2])), Ragged.from_jagged(jagged)):
        assert torch.equal(made.with_table(table()).vectors().values, wanted.values)


@pytest.mark.parametrize("words", [3, 1000])
def test_a_table_of_the_distinct_words_only(words):
    vectors = table(words=words)
    sentences = ids_of([4, 0, 5], vectors)
    small = sentences.distinct()
    assert small.table.shape == (len(set(sentences.values.tolist())), 5)
    assert torch.equal(small.vectors().values, sentences.vectors().values)
    assert sentences.vectors().distinct().table is None


def test_ids_move_copy_slice_and_show_themselves():
    sentences = ids_of([2, 3], table())
    assert repr(sentences) == "Ragged(2 sentences, 5 tokens, each (5), float64, ids of 11 words)"
    assert sentences.dtype == torch.float64
    single = sentences.to(torch.float32)
    assert (single.dtype, single.values.dtype, single.table.dtype) == (torch.float32, torch.int64, torch.float32)
    for other in (copy.deepcopy(sentences), pickle.loads(pickle.dumps(sentences))):
        assert torch.equal(other.vectors().values, sentences.vectors().values)
    cut = sentences.slice_words(1, 3)
    assert torch.equal(cut.vectors().values, sentences.vectors().slice_words(1, 3).values)
    assert sentences.with_values(torch.zeros(5, 2)).table is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_every_float_and_small_ids(dtype):
    sentences = ids_of([4, 3], table(dtype))
    sentences = Ragged(sentences.values.int(), sentences.offsets.int(), table=sentences.table)
    module = tower(dtype)
    found = module(sentences)
    assert found.dtype == dtype
    close(found, module(sentences.vectors()), {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype])


def test_compiled_and_mapped_towers_give_the_same():
    module, rows = tower(), torch.tensor([[3, 4, 5], [0, 1, 3]])

    def states(ids, vectors):
        return module(Ragged.unchecked(ids, torch.tensor([0, 3]), 3, vectors))[0]

    wanted = torch.stack([states(row, table()) for row in rows])
    close(torch.compile(states, backend="eager")(rows[0], table()), wanted[0])
    changed = {"conv.weight": module.conv.weight * 2}
    found = torch.func.functional_call(module, changed, ids_of([3], table()))
    module.conv.weight.data.mul_(2)
    close(found, module(ids_of([3], table())))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Ragged(torch.tensor([0, 3, 11]), torch.tensor([0, 3]), table=table()), ValueError, r"^Ragged: values\[2\] is 11; the table has 11 rows, from 0$"),
        (lambda: Ragged(torch.tensor([0, -1]), torch.tensor([0, 2]), table=table()), ValueError, r"values\[1\] is -1; the table has 11 rows"),
        (lambda: Ragged(torch.tensor([0.0]), torch.tensor([0, 1]), table=table()), ShapeContractError, r"values is \(1,\) float32; beside a table it must be word ids: one axis of int64"),
        (lambda: Ragged(torch.zeros(2, 3).long(), torch.tensor([0, 2]), table=table()), ShapeContractError, r"values is \(2, 3\) int64; beside a table"),
        (lambda: Ragged(torch.tensor([0]), torch.tensor([0, 1]), table=torch.zeros(3)), ShapeContractError, r"table has 1 axis"),
        (lambda: Ragged(torch.tensor([0]), torch.tensor([0, 1])).with_table(torch.zeros(3)), ShapeContractError, r"^Ragged.with_table: table is \(3,\) float32; expected \(words, width\) floats"),
        (lambda: Ragged(torch.tensor([4]), torch.tensor([0, 1])).with_table(torch.zeros(3, 2)), ValueError, r"^Ragged.with_table: values\[0\] is 4; the table has 3 rows"),
        (lambda: Ragged(torch.zeros(1, device="meta").long(), torch.zeros(2, device="meta").long(), table=table()), ShapeContractError, r"values is on meta; its table on cpu"),
        (lambda: tower()(ids_of([3, 1], table())), ValueError, r"sentences.lengths\[1\] is 1; this tower needs at least 2 words"),
        (lambda: tower()(ids_of([3], torch.zeros(4, 7).double())), ShapeContractError, r"sentences: vector_width is 7; expected 5"),
        (lambda: tower()(ids_of([3], table(torch.float32))), ShapeContractError, r"sentences is float32; expected float64 \(the dtype of weight\)"),
        (lambda: TwoTowers()(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 5, dtype=torch.int64)), ShapeContractError, r"left is int64; expected Float"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_unchecked_ids_are_refused_by_torch_and_read_nothing_out_of_bounds():
    with checks("off"):
        sentences = Ragged(torch.tensor([0, 99, 1]), torch.tensor([0, 3]), table=table())
        for grad in (True, False):
            with torch.set_grad_enabled(grad), pytest.raises((IndexError, RuntimeError)):
                tower()(sentences)


def test_on_meta_only_the_sizes_are_known():
    module, sentences = Tower(device="meta"), ids_of([4, 3, 7], torch.zeros(WORDS, 300)).to("meta")
    assert module(sentences).shape == (3, 6)
    with torch.no_grad():
        assert module.encode(sentences.vectors()).shape == (3, 6)


@pytest.mark.cuda
def test_on_a_gpu_ids_give_what_they_give_on_the_cpu():
    module, there = tower(), tower().cuda()
    vectors = nn.Parameter(table())
    for words in (3, WORDS):  # fewer words than tokens, and more
        sentences = ids_of([4, 3], vectors[:words])
        found, wanted = there(sentences.to("cuda")), module(sentences)
        close(found.cpu(), wanted)
        one, other = (
            torch.autograd.grad(states.square().sum(), [vectors, *by.parameters()])
            for states, by in ((found, there), (wanted, module))
        )
        for ours, theirs in zip(one, other, strict=True):
            close(ours.cpu(), theirs, 1e-11)
        with torch.no_grad():
            for _ in range(2):
                close(there(sentences.to("cuda")).cpu(), wanted)
