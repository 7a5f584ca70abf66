"""Tower and TwoTowers against the reference, and what must be true of every sentence in every batch."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import nn

from towers import FeaturePool, PhraseConv, Ragged, RaggedLSTM, ShapeContractError, Tower, TwoTowers
from towers.contracts import attach, checks
from towers.kernels import cpu

from .helpers import reference

needs_compiler = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")


def small_tower(words=None, dtype=torch.float64, **sizes) -> Tower:
    sizes = {"vector_width": 5, "filters": 12, "pool": 3, "hidden": 4} | sizes
    return reference.number_weights(Tower(words, **sizes, dtype=dtype))


def small_model(dtype=torch.float64, right=5) -> TwoTowers:
    return reference.number_weights(TwoTowers(small_tower(dtype=dtype), small_tower(right, dtype=dtype), dense=7))


def pairs(lengths, dtype=torch.float64):
    return reference.sentences(lengths, 5, dtype), reference.sentences([5] * len(lengths), 5, dtype, seed=1)


def close(found, wanted, tolerance=1e-12):
    scale = max(1.0, wanted.abs().max().item() if wanted.numel() else 0.0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * scale)


LENGTHS = st.lists(st.integers(2, 9), min_size=1, max_size=6)


@settings(max_examples=40)
@given(LENGTHS, st.sampled_from([1, 2, 3]), st.sampled_from([None, 1, 2, 3]))
def test_every_sentence_is_as_if_it_were_alone(lengths, kernel_words, chunk):
    tower = small_tower(kernel_words=kernel_words, chunk=chunk)
    rows = reference.sentences([length + 1 for length in lengths], 5)
    wanted = torch.stack([reference.tower(row, tower) for row in rows])
    padded, found_lengths = reference.pad(rows, words=12)
    close(tower(Ragged.from_list(rows)), wanted)
    close(tower(padded, found_lengths), wanted)
    close(tower(torch.nested.nested_tensor(rows, layout=torch.jagged)), wanted)


@given(LENGTHS)
@settings(max_examples=20)
def test_pairs_of_any_lengths_in_one_batch(lengths):
    model = small_model()
    left, right = pairs(lengths)
    wanted = torch.stack([reference.two_towers(a, b, model) for a, b in zip(left, right, strict=True)])
    padded, found_lengths = reference.pad(left, words=11)
    close(model(padded, torch.stack(right), found_lengths), wanted)
    close(model(Ragged.from_list(left), torch.stack(right), None, torch.full((len(left),), 5)), wanted)
    close(model.probability(padded, torch.stack(right), found_lengths), wanted.sigmoid())


@settings(max_examples=25)
@given(LENGTHS, st.randoms(), st.integers(0, 4))
def test_a_result_depends_neither_on_the_batch_nor_on_padding(lengths, random, more):
    model = small_model(torch.float32)
    left, right = pairs(lengths, torch.float32)
    wanted = model(Ragged.from_list(left), torch.stack(right))
    order = list(range(len(left)))
    random.shuffle(order)
    padded, found_lengths = reference.pad([left[index] for index in order], max(lengths) + more)
    close(model(padded, torch.stack(right)[order], found_lengths), wanted[order], 1e-6)
    for index, (one, other) in enumerate(zip(left, right, strict=True)):
        close(model(one.unsqueeze(0), other.unsqueeze(0))[0], wanted[index], 1e-6)


@pytest.mark.parametrize("content", [float("nan"), float("inf"), 1e30, 0.0])
def test_what_padding_contains_changes_neither_results_nor_gradients(content):
    model = small_model()
    left, right = pairs([3, 7, 2])
    gradients = []
    for padded, lengths in (reference.pad(left, 9, padding=0.0), reference.pad(left, 9, padding=content)):
        model.zero_grad()
        padded.requires_grad_()
        logits = model(padded, torch.stack(right), lengths)
        logits.square().sum().backward()
        real = torch.arange(9) < lengths.unsqueeze(1)
        assert torch.equal(padded.grad[~real], torch.zeros_like(padded.grad[~real]))
        gradients.append([logits, padded.grad, *(parameter.grad.clone() for parameter in model.parameters())])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_every_gradient_by_name():
    model, slow = small_model(), small_model()
    left, right = pairs([3, 7, 2, 4])
    padded, lengths = reference.pad(left)
    model(padded, torch.stack(right), lengths).square().sum().backward()
    sum(reference.two_towers(a, b, slow).square() for a, b in zip(left, right, strict=True)).backward()
    wanted = dict(slow.named_parameters())
    for name, parameter in model.named_parameters():
        close(parameter.grad, wanted[name].grad, 1e-11)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_walking_in_chunks_is_the_whole_walk(chunk):
    sentences = torch.stack(reference.sentences([5] * 3, 5, torch.float32))
    whole, walked = small_tower(5, torch.float32), small_tower(5, torch.float32, chunk=chunk)
    close(walked(sentences), whole(sentences), 1e-6)
    close(walked(sentences, torch.tensor([5, 5, 5])), whole(sentences), 1e-6)


def test_an_empty_batch_gives_an_empty_result():
    model = small_model()
    empty = Ragged(torch.zeros(0, 5).double(), torch.tensor([0]))
    assert model(torch.zeros(0, 7, 5).double(), torch.zeros(0, 5, 5).double()).shape == (0,)
    assert model(empty, empty).shape == (0,)
    assert small_tower(chunk=2)(empty).shape == (0, 4)


def test_the_same_tower_twice_shares_its_weights():
    tower = small_tower()
    model = TwoTowers(tower, tower)
    assert model.left is model.right
    assert len(list(model.parameters())) == 5 + 4
    sentences = torch.stack(reference.sentences([4] * 2, 5))
    same = model(sentences, sentences)
    close(same, model.compare(torch.zeros(2, 4).double(), torch.zeros(2, 4).double()))


def test_encode_once_compare_often():
    model = small_model(right=None)
    left, right = reference.sentences([3, 5, 4], 5), reference.sentences([5, 2], 5, seed=2)
    lefts, rights = model.encode_left(Ragged.from_list(left)), model.encode_right(Ragged.from_list(right))
    table = model.compare(lefts.unsqueeze(1), rights)
    assert table.shape == (3, 2)
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            close(table[i, j], reference.two_towers(one, other, model))
    assert model.compare(lefts[0], rights[0]).shape == ()
    assert model.compare(lefts.unsqueeze(1), rights[:0]).shape == (3, 0)


def test_sizes_are_attributes():
    tower = Tower(5, chunk=2)
    assert (tower.words, tower.vector_width, tower.kernel_words, tower.hidden, tower.chunk) == (5, 300, 2, 6, 2)
    assert tower.pool.size == 4
    assert tower.conv.filters == 32
    assert TwoTowers().dense.out_features == 16
    assert "words=any" in repr(Tower())
    assert "words=5, chunk=2" in repr(tower)


def test_the_network_has_the_parameters_of_the_original():
    assert sum(parameter.numel() for parameter in TwoTowers().parameters()) == 39_313


def test_reset_parameters_draws_the_same_from_the_same_seed_and_reaches_every_weight():
    drawn = []
    for _ in range(2):
        model = TwoTowers()
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, 9.0)
        torch.manual_seed(5)
        model.reset_parameters()
        assert not any((parameter == 9.0).any() for parameter in model.parameters())
        drawn.append(list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_every_float(dtype):
    model = small_model(dtype)
    left, right = pairs([3, 6, 2], dtype)
    logits = model(Ragged.from_list(left), torch.stack(right))
    assert logits.dtype == dtype
    exact = small_model(torch.float64)
    wanted = exact(Ragged.from_list(left).to(torch.float64), torch.stack(right).double())
    close(logits.double(), wanted, {torch.float32: 1e-5, torch.float64: 0.0, torch.bfloat16: 0.1}[dtype])


@pytest.mark.parametrize("shape", ["ragged", "padded"])
def test_under_autocast_the_states_have_its_dtype(shape):
    model = small_model(torch.float32)
    left, right = pairs([3, 6, 2], torch.float32)
    sentences, lengths = (Ragged.from_list(left), None) if shape == "ragged" else reference.pad(left)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.encode_left(sentences, lengths).dtype == torch.bfloat16
        logits = model(sentences, torch.stack(right), lengths)
    close(logits.float(), model(sentences, torch.stack(right), lengths), 0.1)
    logits.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_float64_under_autocast_is_taken_in_too():
    tower, rows = small_tower(dtype=torch.float32), reference.sentences([3, 4], 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tower(Ragged.from_list(rows)).dtype == torch.bfloat16


def test_it_is_made_on_meta_moved_copied_pickled_and_run_with_other_weights():
    assert all(parameter.is_meta for parameter in TwoTowers(device="meta").parameters())
    assert TwoTowers(device="meta")(
        torch.empty(3, 7, 300, device="meta"), torch.empty(3, 5, 300, device="meta")
    ).shape == (3,)
    empty = TwoTowers(device="meta").to_empty(device="cpu")
    empty.reset_parameters()
    assert all(parameter.isfinite().all() for parameter in empty.parameters())

    model = small_model()
    left, right = pairs([3, 6])
    sentences = (Ragged.from_list(left), torch.stack(right))
    wanted = model(*sentences)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(*sentences), wanted)
    assert torch.equal(torch.func.functional_call(model, dict(small_model().named_parameters()), sentences), wanted)
    fresh = TwoTowers(
        Tower(**model.left.config()), Tower(**model.right.config()), dense=7, dtype=torch.float64
    ).double()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(*sentences), wanted)


def test_unchecked_lengths_read_nothing_out_of_bounds():
    tower = small_tower()
    with checks("off"):
        states = tower(torch.ones(3, 4, 5).double(), torch.tensor([-7, 1, 99]))
    assert states.shape == (3, 4)
    close(states[2], tower(torch.ones(1, 4, 5).double())[0])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Tower(pool=5), r"Tower: pool \(5\) must divide filters \(32\)"),
        (lambda: Tower(5, chunk=3), r"Tower: chunk \(3\) must divide steps \(4 = words - kernel_words \+ 1\): one of 1, 2, 4"),
        (lambda: Tower(1), r"Tower: words \(1\) must be at least kernel_words \(2\)"),
        (lambda: Tower(hidden=0), r"Tower: hidden \(0\) must be an int of at least 1"),
        (lambda: Tower(chunk=-1), r"Tower: chunk \(-1\) must be an int of at least 1"),
        (lambda: TwoTowers(Tower(hidden=6), Tower(hidden=8)), r"TwoTowers: left.width \(6\) and right.width \(8\) must be equal"),
        (lambda: TwoTowers(5), r"TwoTowers: left \(5\) must be a Tower, or None for the usual one"),
        (lambda: TwoTowers(dense=0), r"TwoTowers: dense \(0\) must be an int of at least 1"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_fit_are_refused_at_construction(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: m(zeros(2, 7, 300, 1), zeros(2, 5, 300)), ShapeContractError, r"left has 4 axes \(2, 7, 300, 1\); expected 3[\s\S]*squeeze\(-1\)"),
        (lambda m: m(zeros(7, 300), zeros(5, 300)), ShapeContractError, r"left has 2 axes \(7, 300\)[\s\S]*batch axis is missing: unsqueeze\(0\)"),
        (lambda m: m(zeros(2, 7, 300), zeros(2, 4, 300)), ShapeContractError, r"^TwoTowers.forward: right: right_words is 4; this TwoTowers needs exactly 5 right_words$"),
        (lambda m: m(zeros(2, 1, 300), zeros(2, 5, 300)), ShapeContractError, r"^TwoTowers.forward: left: left_words is 1; this TwoTowers needs at least 2 left_words$"),
        (lambda m: m(zeros(2, 7, 300), zeros(3, 5, 300)), ShapeContractError, r"right: batch is 3; expected 2 \(as in left\)"),
        (lambda m: m(zeros(2, 300, 7), zeros(2, 5, 300)), ShapeContractError, r"left: vector_width is 7; expected 300 \(self.left.vector_width\)[\s\S]*transpose\(1, 2\) would fit"),
        (lambda m: m(zeros(2, 7, 300), zeros(2, 5, 300), torch.tensor([2, 3, 4])), ShapeContractError, r"left_lengths: batch is 3; expected 2 \(as in left\)"),
        (lambda m: m(zeros(2, 7, 300, dtype=torch.float64), zeros(2, 5, 300)), ShapeContractError, r"sentences is float64; expected float32 \(the dtype of weight\)"),
        (lambda m: m(zeros(2, 7, 300, dtype=torch.int64), zeros(2, 5, 300)), ShapeContractError, r"left is int64; expected Float"),
        (lambda m: m(zeros(2, 7, 300), zeros(2, 5, 300), torch.tensor([2.0, 3.0])), ShapeContractError, r"left_lengths is float32; expected Int"),
        (lambda m: m([zeros(7, 300)], zeros(1, 5, 300)), ShapeContractError, r"left is a list; expected Float\[Tensor[\s\S]*Ragged.from_list"),
        (lambda m: m.left(torch.nested.nested_tensor([zeros(3, 30)], layout=torch.jagged)), ShapeContractError, r"sentences: vector_width is 30; expected 300"),
        (lambda m: m.left(torch.nested.nested_tensor([zeros(3, 300), zeros(1, 300)], layout=torch.jagged)), ValueError, r"sentences.lengths\[1\] is 1; this tower needs at least 2 words"),
        (lambda m: m(zeros(5, 7, 300), zeros(5, 5, 300), torch.tensor([2, 7, 3, 1, 2])), ValueError, r"^left in TwoTowers: Tower.forward: lengths\[3\] is 1; this tower needs at least 2 words$"),
        (lambda m: m(zeros(2, 7, 300), zeros(2, 5, 300), torch.tensor([8, 2])), ValueError, r"lengths\[0\] is 8; this tower needs at most 7 words"),
        (lambda m: m(zeros(2, 7, 300), zeros(2, 5, 300), torch.tensor([2, -4])), ValueError, r"lengths\[1\] is -4; this tower needs at least 2 words"),
        (lambda m: m(zeros(2, 7, 300), zeros(2, 5, 300), None, torch.tensor([5, 4])), ValueError, r"^right in TwoTowers: Tower.forward: lengths\[1\] is 4; this tower needs exactly 5 words$"),
        (lambda m: m.right(Ragged.from_list([zeros(5, 300), zeros(6, 300)])), ValueError, r"sentences.lengths\[1\] is 6; this tower needs exactly 5 words"),
        (lambda m: m.left(Ragged.from_list([zeros(5, 300)]), torch.tensor([5])), ShapeContractError, r"only padded input takes lengths"),
        (lambda m: m.left.lstm(zeros(2, 7, 32)), ShapeContractError, r"^RaggedLSTM.forward: input: input_size is 32; expected 8 \(self.input_size\)[\s\S]*not pooled yet: 32 = 8 x 4"),
        (lambda m: m.left.pool(zeros(2, 32, 7)), ShapeContractError, r"phrases: filters is 7; expected 32"),
        (lambda m: m.compare(zeros(3, 6), zeros(4, 6)), ShapeContractError, r"right_state: leading is \(4,\); expected what broadcasts with \(3,\) \(as in left_state\)"),
        (lambda m: m.compare(zeros(3, 6), zeros(3, 5)), ShapeContractError, r"right_state: hidden is 5; expected 6 \(self.hidden\)"),
    ],
)  # fmt: skip
def test_a_call_that_does_not_fit_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call(TwoTowers())


def test_a_wrong_width_inside_is_named_with_its_place_in_the_tree():
    model = TwoTowers()
    model.left.pool = torch.nn.Identity()
    with pytest.raises(
        ShapeContractError, match=r"^left\.lstm in TwoTowers: RaggedLSTM\.last: input: input_size is 32; expected 8"
    ):
        model(zeros(2, 7, 300), zeros(2, 5, 300))


@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiled_towers_give_the_same(fullgraph):
    torch._dynamo.reset()
    model = small_model(torch.float32)
    left, right = pairs([6, 6], torch.float32)
    sentences = (torch.stack(left), torch.stack(right))
    with torch.no_grad():
        close(torch.compile(model, backend="eager", fullgraph=fullgraph)(*sentences), model(*sentences), 1e-6)


def test_exported_towers_give_the_same():
    model = small_model(torch.float32)
    left, right = pairs([6, 6], torch.float32)
    sentences = (torch.stack(left), torch.stack(right))
    close(torch.export.export(model, sentences).module()(*sentences), model(*sentences), 1e-6)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_a_nested_tensor_of_the_other_layout_is_refused():
    strided = torch.nested.nested_tensor([zeros(3, 300)], layout=torch.strided)
    with pytest.raises(
        ShapeContractError, match=r"is a nested tensor of layout torch.strided[\s\S]*layout=torch.jagged"
    ):
        Tower()(strided)


@pytest.mark.cuda
@pytest.mark.parametrize("lengths_on", ["cpu", "cuda"])
def test_on_a_gpu_it_is_what_it_is_on_the_cpu(lengths_on):
    model, there = small_model(), small_model().cuda()
    left, right = pairs([3, 7, 2, 4])
    padded, lengths = reference.pad(left)
    logits = there(padded.cuda(), torch.stack(right).cuda(), lengths.to(lengths_on))
    close(logits.cpu(), model(padded, torch.stack(right), lengths))
    close(there(Ragged.from_list(left).to("cuda"), Ragged.from_list(right).to("cuda")), logits)
    logits.square().sum().backward()
    model(padded, torch.stack(right), lengths).square().sum().backward()
    for one, other in zip(there.parameters(), model.parameters(), strict=True):
        close(one.grad.cpu(), other.grad, 1e-11)


@pytest.mark.parametrize("layer", ["conv", "pool", "lstm"])
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_who_listens_to_a_layer_hears_it(layer, chunk, register):
    tower, sentences, heard = Tower(vector_width=20, chunk=chunk), torch.randn(3, 7, 20), []
    wanted = tower(sentences)
    getattr(getattr(tower, layer), register)(lambda *_: heard.append(1))
    states = tower(sentences)
    assert heard
    torch.testing.assert_close(states, wanted, rtol=1e-6, atol=1e-6)


def test_a_contract_of_a_layer_is_kept():
    tower = Tower(vector_width=20)
    with attach(tower.lstm, contracted_lstm), pytest.raises(ShapeContractError, match="lstm in Tower"):
        tower(torch.randn(3, 7, 20))


def contracted_lstm(input: Float[Ragged, "batch steps 9"], hx: object = None, *, lengths: object = None) -> object: ...


@pytest.mark.parametrize("mode", ["on", "off"])
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda t: setattr(t, "conv", PhraseConv(20, 16)), ShapeContractError, "filters is 16; expected 32|input is|input_size is 4"),
        (lambda t: setattr(t, "pool", FeaturePool(8)), ShapeContractError, "input_size is 4; expected 8|input is"),
        (lambda t: setattr(t, "lstm", RaggedLSTM(9, 6, bias="single")), ShapeContractError, "input_size is 8; expected 9|input is"),
        (lambda t: setattr(t.conv, "bias", nn.Parameter(zeros(3))), RuntimeError, "must match"),
        (lambda t: setattr(t.conv, "weight", nn.Parameter(zeros(2, 32, 19))), RuntimeError, "cannot be multiplied"),
        (lambda t: setattr(t.lstm, "weight_ih_l0", nn.Parameter(zeros(24, 9))), RuntimeError, "do not fit"),
        (lambda t: setattr(t.lstm, "bias_ih_l0", nn.Parameter(zeros(23))), RuntimeError, "do not fit"),
    ],
    ids=["filters", "pool", "input size", "bias", "weight", "weight of the LSTM", "bias of the LSTM"],
)  # fmt: skip
def test_layers_and_weights_of_other_sizes_are_refused_before_they_are_read(change, error, text, mode):
    tower = Tower(vector_width=20)
    change(tower)
    with checks(mode), pytest.raises(error, match=text):
        tower(zeros(3, 7, 20))


def test_another_lstm_that_fits_is_run():
    tower, sentences = small_tower(), torch.stack(reference.sentences([4] * 3, 5))
    tower.lstm = reference.number_weights(RaggedLSTM(4, 4, num_layers=2, dtype=torch.float64))
    features = tower.pool(tower.conv(sentences))
    close(tower(sentences), tower.lstm(features)[1][0][-1])
