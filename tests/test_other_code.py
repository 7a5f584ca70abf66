"""In other people's code: their training loops train TwoTowers unchanged, and their LSTM module runs on RaggedLSTM.

A loop in plain PyTorch is the reference. Each of the others is given the same batches in the same order, and must end
with the same weights; the contracts are on, which a batch of the wrong width shows in each of them.
"""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader

from towers import RaggedLSTM, ShapeContractError, Tower, TwoTowers
from towers.answers import Model
from towers.contracts import checks
from towers.data import WordVectors

EPOCHS, BATCH, WIDTH = 3, 8, 6


@pytest.fixture(autouse=True)
def strict():
    """What a network is given is looked at as far as it goes, values of lengths included."""
    with checks("strict"):
        yield


@pytest.fixture
def model():
    model = TwoTowers(Tower(vector_width=WIDTH, hidden=3), Tower(words=5, vector_width=WIDTH, hidden=3), dense=4)
    torch.nn.init.ones_(model.dense.bias)  # with an unlucky seed no unit would be above 0, and nothing would learn
    return model


@pytest.fixture
def pairs():
    """Sentences of 2 to 9 words, padded with NaN; true where the first number of the first word is positive."""
    lengths = torch.randint(2, 10, (30,))
    left = torch.randn(30, 9, WIDTH)
    labels = (left[:, 0, 0] > 0).float()
    left[torch.arange(9) >= lengths[:, None]] = torch.nan
    right = torch.randn(30, 5, WIDTH)
    return [
        {"left": left[at], "right": right[at], "left_lengths": lengths[at], "labels": labels[at]} for at in range(30)
    ]


def batches(pairs):
    return DataLoader(pairs, BATCH)


def loss_of(model, batch):
    batch = dict(batch)
    labels = batch.pop("labels")
    return F.binary_cross_entropy_with_logits(model(**batch), labels)


def optimizer_of(model):
    return torch.optim.Adam(model.parameters(), lr=0.02)


def train_plainly(model, pairs):
    """Returns the loss of each step."""
    optimizer, losses = optimizer_of(model), []
    for _ in range(EPOCHS):
        for batch in batches(pairs):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def train_with_lightning(model, pairs):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch):
            return loss_of(self.model, batch)

        def configure_optimizers(self):
            return optimizer_of(self.model)

    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        barebones=False,
    )
    trainer.fit(Module(), batches(pairs))


def train_with_accelerate(model, pairs):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer_of(model), batches(pairs))
    for _ in range(EPOCHS):
        for batch in loader:
            optimizer.zero_grad()
            accelerator.backward(loss_of(prepared, batch))
            optimizer.step()


def train_with_transformers(model, pairs):
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")

    class Trainer(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return loss_of(model, inputs)

        def get_train_dataloader(self):
            return self.accelerator.prepare(batches(self.train_dataset))

    arguments = transformers.TrainingArguments(
        output_dir="trained",
        num_train_epochs=EPOCHS,
        max_grad_norm=0,  # it clips by itself otherwise
        remove_unused_columns=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    optimizer = optimizer_of(model)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    Trainer(model, arguments, train_dataset=pairs, optimizers=(optimizer, constant)).train()


def test_no_attribute_has_a_name_that_trainers_ask_for(model):
    assert not any(hasattr(model, name) for name in ("config", "hf_device_map", "is_quantized", "quantization_method"))


def test_a_plain_loop_learns(model, pairs):
    losses = train_plainly(model, pairs)
    assert sum(losses[-4:]) < sum(losses[:4])


OTHERS = {
    "lightning": train_with_lightning,
    "accelerate": train_with_accelerate,
    "transformers": train_with_transformers,
}


@pytest.fixture(params=OTHERS.values(), ids=OTHERS.keys())
def train(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return request.param


def test_each_ends_with_the_weights_of_the_plain_loop(train, model, pairs):
    own = copy.deepcopy(model)
    train_plainly(own, pairs)
    before = copy.deepcopy(model.state_dict())
    train(model, pairs)
    for name, weight in own.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, msg=lambda told, name=name: f"{name}: {told}")
        assert not torch.equal(weight, before[name]), name


def test_contracts_are_on_in_each(train, model, pairs):
    narrow = [{**pair, "right": pair["right"][:, 1:]} for pair in pairs]
    with pytest.raises(
        ShapeContractError, match=r"TwoTowers.forward: right: right.vector_width|width is 5; expected 6"
    ):
        train(model, narrow)
    long = [{**pair, "left_lengths": torch.tensor(10)} for pair in pairs]
    with pytest.raises(ValueError, match="lengths"):
        train(model, long)


def test_contracts_are_on_in_the_plain_loop(model, pairs):
    test_contracts_are_on_in_each(train_plainly, model, pairs)


# sentence-transformers


class Restated(torch.nn.Module):
    """What sentence-transformers' LSTM module does with its `encoder`, for those who have not installed it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, features):
        lengths = features["sentence_lengths"].clamp(min=1).cpu()
        packed = pack_padded_sequence(features["token_embeddings"], lengths, batch_first=True, enforce_sorted=False)
        return features | {"token_embeddings": pad_packed_sequence(self.encoder(packed)[0], batch_first=True)[0]}


def restated(layers, bidirectional):
    return Restated(torch.nn.LSTM(5, 4, layers, bidirectional=bidirectional, batch_first=True))


def real(layers, bidirectional):
    models = pytest.importorskip("sentence_transformers.models")
    return models.LSTM(5, 4, num_layers=layers, bidirectional=bidirectional)


@pytest.mark.parametrize("make", [restated, real], ids=["restated", "sentence_transformers"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both directions"])
def test_an_lstm_module_of_sentence_transformers_runs_on_ragged_lstm(make, layers, bidirectional):
    theirs = make(layers, bidirectional)
    ours = copy.deepcopy(theirs)
    ours.encoder = RaggedLSTM.from_torch(theirs.encoder)
    vectors = torch.randn(6, 9, 5)
    lengths = torch.tensor([3, 9, 1, 5, 0, 9])
    embedded = []
    for module in (theirs, ours):
        given = {"token_embeddings": vectors.clone(), "sentence_lengths": lengths}
        embedded.append(module(given)["token_embeddings"])
        (embedded[-1] * torch.linspace(-1, 1, embedded[-1].numel()).view_as(embedded[-1])).sum().backward()
    torch.testing.assert_close(embedded[1], embedded[0])
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, msg=lambda told, name=name: f"{name}: {told}")
    assert ours.state_dict().keys() == theirs.state_dict().keys()


# The evaluators of sentence-transformers that take a similarity, beside what they must find: that of every pair alone.


@pytest.fixture
def answering():
    words = [f"w{number}" for number in range(40)]
    network = TwoTowers(Tower(vector_width=WIDTH, hidden=3), Tower(vector_width=WIDTH, hidden=3), dense=4)
    return Model(network, WordVectors(words, torch.randn(40, WIDTH)))


@pytest.fixture
def corpus():
    return [" ".join(f"w{int(word)}" for word in torch.randint(40, (int(length),))) for length in range(3, 15)]


def test_semantic_search_by_the_score(answering, corpus):
    util = pytest.importorskip("sentence_transformers.util")
    queries = corpus[:3]
    states = answering.encode_query(queries, convert_to_tensor=True), answering.encode_document(corpus)
    hits = util.semantic_search(*states, score_function=answering.similarity, top_k=4, query_chunk_size=2)
    scores, places = answering.most_similar(queries, corpus, 4)
    assert [[hit["corpus_id"] for hit in query] for query in hits] == places.tolist()
    torch.testing.assert_close(torch.tensor([[hit["score"] for hit in query] for query in hits]), scores)


def test_evaluators_of_retrieval_and_reranking(answering, corpus):
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    queries, documents = dict(enumerate(corpus[:4])), {f"d{place}": text for place, text in enumerate(corpus)}
    relevant = {query: {f"d{(5 * query + 1) % 12}"} for query in queries}
    evaluator = evaluation.InformationRetrievalEvaluator(queries, documents, relevant, write_csv=False)
    metrics = evaluator(answering)
    ranks = [
        answering.most_similar(text, corpus, 12)[1].tolist().index((5 * query + 1) % 12) + 1
        for query, text in queries.items()
    ]
    expected = sum(1 / rank for rank in ranks if rank <= 10) / len(ranks)
    assert metrics["score_mrr@10"] == pytest.approx(expected)
    assert answering.model_card_data.measured["score_mrr@10"] == metrics["score_mrr@10"]

    samples = [{"query": text, "positive": corpus[5:6], "negative": corpus[6:]} for text in corpus[:4]]
    for batched in (True, False):
        reranking = evaluation.RerankingEvaluator(
            samples, similarity_fct=answering.similarity, write_csv=False, use_batched_encoding=batched
        )
        ranks = [answering.most_similar(text, corpus[5:], 12)[1].tolist().index(0) + 1 for text in corpus[:4]]
        assert reranking(answering)["map"] == pytest.approx(sum(1 / rank for rank in ranks) / 4)


def test_what_evaluators_may_ask_of_a_model(answering, corpus):
    assert answering.encode_query(corpus[0]).shape == (3,)
    assert (answering.encode_document(corpus, batch_size=2) == answering.encode(corpus, side="right").numpy()).all()
    for options in ({"prompt": "query: "}, {"truncate_dim": 2}, {"prompt_name": "q"}):
        with pytest.raises(ValueError, match=r"is nothing that this model has; leave it out"):
            answering.encode_query(corpus, **options)
    assert answering.encode_query(corpus, prompt=None, truncate_dim=None).shape == (12, 3)
