"""Word vectors, sentence pairs, their batches, and the built-in sample."""

from towers.data.batches import Batch as Batch
from towers.data.pairs import SentencePairs as SentencePairs
from towers.data.readers import Table as Table
from towers.data.readers import read_table as read_table
from towers.data.sample import sample_pairs as sample_pairs
from towers.data.sources import Stream as Stream
from towers.data.vector_store import VectorStore as VectorStore
from towers.data.vectors import Coverage as Coverage
from towers.data.vectors import WordVectors as WordVectors
from towers.data.words import split_words as split_words
