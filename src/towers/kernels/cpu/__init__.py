"""An LSTM over sentences of different lengths, written in C: no padding, no sorting, a sentence's bits its own.

`lstm.c` is compiled once, by the machine's C compiler, for its processor, and kept (`library`); where there is no
compiler, the other ways run. `lstm` lays a batch out for it and walks over it. `phrases` is what comes before it in a
tower.
"""

from towers.kernels.cpu import phrases_call as phrases_call
from towers.kernels.cpu.library import why_not as why_not
from towers.kernels.cpu.lstm_call import Layout as Layout
from towers.kernels.cpu.lstm_call import backward as backward
from towers.kernels.cpu.lstm_call import forward as forward
from towers.kernels.cpu.lstm_call import serves as serves
