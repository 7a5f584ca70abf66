"""An LSTM over sentences of different lengths, and a whole tower, written in C: a sentence's bits are its own.

The C code is compiled when towers is installed (`built`), and loaded by `library`; where it is absent, torch's own
operations run. `lstm_call` lays a batch out and calls it, `lstm_autograd` gives it to torch's graph. `door` calls a
whole tower, `tower_autograd` and `tower_operator` give it to torch's graph and to its compiler.
"""

from towers.kernels.cpu.library import why_not as why_not
