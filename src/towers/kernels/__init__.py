"""The code that runs an LSTM over sentences of different lengths, through one function.

`run(batch, state, weights, outputs=…) -> (output, (h_n, c_n))` is all that other parts of towers need; `Batch` and
`Weights` say what goes in. `state` is (h_0, c_0) as nn.LSTM's, in the order of the batch, and so are h_n and c_n, each
sentence's at its own end (a sentence of length 0 keeps its state). `output` has a row for each row of the values, 0
where that row belongs to no sentence. With `outputs=False` only h_n is wanted: output is None, and c_n is undefined.

There are three backends; `backend(batch, count, weights)` says which one runs, and why:

- "native", on the CPU: C code (`cpu`), compiled when towers is installed. It walks over each sentence
  by itself, without padding or sorting, so that a sentence's bits do not depend on its neighbours. It has no
  projection, and takes float32 and float64.
- "triton", on an NVIDIA GPU: kernels of our own (`triton`) for up to 128 hidden units without a projection. They do not
  wait for the GPU.
- "torch", for all else: `torch.lstm`, on the CPU over a few groups of sentences of similar lengths (`torch_lstm`).

Fake, functional and compiled tensors on the CPU go through one custom operation (`operator`), which runs the same code.
To add a backend, write a module with `serves(batch, weights)`, which looks at devices, dtypes and sizes only, and
`run(batch, state, weights, *, outputs)` with the results above, differentiable, and enter it in `dispatch`.
"""

from towers.kernels.batch import Batch as Batch
from towers.kernels.batch import State as State
from towers.kernels.batch import Weights as Weights
from towers.kernels.cpu import pair_operator as pair_operator
from towers.kernels.dispatch import Backend as Backend
from towers.kernels.dispatch import backend as backend
from towers.kernels.dispatch import reads_as_they_are as reads_as_they_are
from towers.kernels.dispatch import run as run
