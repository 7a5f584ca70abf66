"""What the evaluators of sentence-transformers ask of a model, beside `similarity`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

if TYPE_CHECKING:
    import numpy


class Metrics:
    """The metrics that evaluators hand back, the latest of each name."""

    def __init__(self) -> None:
        self.measured: dict[str, Any] = {}

    def set_evaluation_metrics(self, evaluator: object, metrics: dict[str, Any], *_: object) -> None:
        """Keep the metrics of an evaluator."""
        self.measured.update(metrics)


class Evaluated:
    """A model for the evaluators that take its own `similarity`: retrieval and reranking, and for `semantic_search`.

        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

        InformationRetrievalEvaluator(queries, corpus, relevant_docs)(model)
        RerankingEvaluator(samples, similarity_fct=model.similarity)(model)

    A query is read by the left tower, a document by the right one. An evaluator of pairs, such as
    EmbeddingSimilarityEvaluator, compares states by their cosine, which is not the score of this model: `towers
    evaluate` and `towers.training.evaluate` measure the score itself.
    """

    similarity_fn_name = "score"

    def __init__(self) -> None:
        self.model_card_data = Metrics()

    def encode(
        self, sentences: Any, *, side: Literal["left", "right"] = "left", progress: bool | None = None
    ) -> Tensor:
        """The states of sentences."""
        raise NotImplementedError

    def encode_query(self, sentences: "str | Iterable[Any]", **options: Any) -> "Tensor | numpy.ndarray[Any, Any]":
        """The states of queries, by the left tower; of one string, its state.

        Options are those of sentence-transformers: `show_progress_bar` and `convert_to_tensor` count, `batch_size`
        changes nothing.

        Raises:
            ValueError: a prompt or another number of dimensions is wanted, which this model has not, or the tower does
                not take a sentence.
        """
        return self._encoded(sentences, "left", **options)

    def encode_document(self, sentences: "str | Iterable[Any]", **options: Any) -> "Tensor | numpy.ndarray[Any, Any]":
        """The states of documents, by the right tower, otherwise as `encode_query`."""
        return self._encoded(sentences, "right", **options)

    def _encoded(
        self,
        sentences: "str | Iterable[Any]",
        side: Literal["left", "right"],
        *,
        convert_to_tensor: bool = False,
        show_progress_bar: bool | None = None,
        batch_size: int | None = None,
        **others: Any,
    ) -> "Tensor | numpy.ndarray[Any, Any]":
        if wanted := [name for name, value in others.items() if value is not None]:
            raise ValueError(f"{wanted[0]} ({others[wanted[0]]!r}) is nothing that this model has; leave it out")
        single = isinstance(sentences, str)
        states = self.encode([sentences] if single else sentences, side=side, progress=show_progress_bar)
        states = states[0] if single else states
        return states if convert_to_tensor else states.numpy()
