"""An LSTM over sentences of different lengths, written in C: no padding, no sorting, a sentence's bits its own.

`lstm.c` is compiled once, by the machine's C compiler, for its processor, and kept (`library`); where there is no
compiler, the other ways run. `lstm` lays a batch out for it and walks over it. `phrases` is what comes before it in a
tower.
"""

from towers.kernels.native import phrases as phrases
from towers.kernels.native.library import why_not as why_not
from towers.kernels.native.lstm import Layout as Layout
from towers.kernels.native.lstm import backward as backward
from towers.kernels.native.lstm import forward as forward
from towers.kernels.native.lstm import serves as serves
