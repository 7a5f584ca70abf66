"""The ways to run an LSTM over sentences of different lengths, behind one interface.

`run(batch, state, weights, outputs=…, method=…) -> (output, (h_n, c_n))` is all that others need; see `Batch` and
`Weights` for what goes in. `state` is (h_0, c_0) as nn.LSTM's, in the order of the batch, and so are h_n and c_n, each
sentence's at its own end (a sentence of length 0 keeps its state). `output` has a row for each row of the values, 0
where that belongs to no sentence; with `outputs=False` only h_n is wanted: output is None, and c_n may be anything.

Which code runs:

- `device_backends`, for tensors that do not lie on the CPU: the first module whose `serves(batch, weights)` is true.
  Such a module gets the batch flat (`Batch.flat`). It has `serves`, which looks at devices, dtypes and sizes only, and
  `run(batch, state, weights, *, outputs)` with the results above, differentiable. It must neither read `starts` and
  `lengths` on the host nor wait for the device, and, being made of custom operations, takes fake tensors,
  `torch.compile` and export itself. To add one, write the module and enter it in `device_backends`, before
  `torch_lstm`, which serves everything. `triton` is the first.
- On the CPU, plain tensors in eager code go to `cpu`, which runs C code wherever it can: C code that walks over
  each sentence by itself, without padding or sorting, so that a sentence's bits are its own. Where there is no C
  compiler, or a projection, or few sentences under weights that fall out of the cache, a plan is made (`plan`, by the
  model in `costs`), laid out (`layout`) and walked over, a layer and direction at a time (`walk`): pieces of the
  batch side by side (`threads`), each segment of a piece in one of the ways, `buckets` or `steps`. Padded batches for
  which that does not pay are not laid out, but run as they stand (`whole`); where the last states alone are wanted,
  and no gradients of a large batch, sentences go in `blocks` of like lengths.
- Fake, functional and compiled tensors on the CPU go through one custom operation (`operator`), which runs the same.
"""

from towers.kernels.batch import Batch as Batch
from towers.kernels.batch import State as State
from towers.kernels.batch import Weights as Weights
from towers.kernels.dispatch import reads_as_they_are as reads_as_they_are
from towers.kernels.dispatch import run as run
