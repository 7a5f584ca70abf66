"""An LSTM over sentences of different lengths, and a whole tower, written in C: a sentence's bits are its own.

The C code is compiled when towers is installed (`built`), and loaded by `library`; where it is absent, torch's own
operations run. `lstm_call` lays a batch out and calls it, `lstm_autograd` gives it to torch's graph, `layer_call` runs
a layer without gradients. `tower_call` runs a whole tower or pair, as a node of torch's graph too; `tower_operator` and
`pair_operator` give it to torch's compiler. `door` checks all tensors before.
"""

from towers.kernels.cpu.library import why_not as why_not
