"""An LSTM over sentences of different lengths, written in C: no padding, no sorting, a sentence's bits its own.

`lstm.c` is compiled once, by the machine's C compiler, for its processor, and kept (`library`); where there is no
compiler, torch's own operations run. `lstm_call` lays a batch out and calls it, `lstm_autograd` gives it to torch's
graph. `phrases_call` calls what comes before it in a tower.
"""

from towers.kernels.cpu import phrases_call as phrases_call
from towers.kernels.cpu.library import why_not as why_not
