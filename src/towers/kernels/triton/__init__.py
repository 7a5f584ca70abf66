"""The backend for NVIDIA GPUs: Triton kernels that go over sentences of different lengths without padding them.

A small LSTM on a GPU is limited by the latency of its steps. Here a step stays in the registers of one warp, or of one
block where the hidden size is large. Both LSTM kernels find a sentence by its start and length, so padded, packed and
jagged batches look the same to them.

- `support` says which GPUs, sizes and dtypes the kernels support.
- `fused_lstm` runs all layers of an LSTM: `lstm_narrow` for small sizes, `lstm_wide` for the others, and of these
  `lstm_exchanged` takes the steps where weights are bfloat16 and hidden sizes 33 to 128. Products of the wide LSTM that
  wait for no step are those of `lstm_products`.
- `phrase_features` computes a tower's convolution and pool in one pass.
- `best_items` finds the best items of each query, for `towers.search`.
"""

from towers.kernels.triton.fused_lstm import run
from towers.kernels.triton.support import runs_on, serves, serves_phrases, serves_search

__all__ = ["run", "runs_on", "serves", "serves_phrases", "serves_search"]
