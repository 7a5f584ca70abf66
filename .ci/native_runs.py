"""Ends with an error unless the native code of an installed towers runs, and agrees with nn.LSTM."""

import torch
from torch import nn

from towers import RaggedLSTM

theirs, x = nn.LSTM(8, 6, batch_first=True), torch.randn(40, 9, 8)
ours = RaggedLSTM.from_torch(theirs)
print(ours.backend(x))
assert ours.backend(x).name == "native"
torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-6)
