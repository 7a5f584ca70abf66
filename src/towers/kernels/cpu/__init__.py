"""An LSTM over sentences of different lengths, written in C: no padding, no sorting, a sentence's bits its own.

The C code is compiled when towers is installed (`built`), and loaded by `library`; where it is absent, torch's own
operations run. `lstm_call` lays a batch out and calls it, `lstm_autograd` gives it to torch's
graph. `phrases_call` calls what comes before it in a tower.
"""

from towers.kernels.cpu import phrases_call as phrases_call
from towers.kernels.cpu.library import why_not as why_not
