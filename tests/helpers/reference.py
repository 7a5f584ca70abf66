"""The network, slow and obvious: one sentence at a time, one step at a time, in float64."""

import torch
from torch import Tensor, nn

from towers import RaggedLSTM, Tower, TwoTowers


def conv(sentence: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(words, width) -> (steps, filters); weight (kernel_words, filters, width)."""
    places = len(weight)
    rows = [
        sum(weight[place] @ sentence[step + place] for place in range(places)) + bias
        for step in range(len(sentence) - places + 1)
    ]
    return torch.stack(rows) if rows else sentence.new_zeros(0, len(bias))


def pool(phrases: Tensor, size: int) -> Tensor:
    """(steps, filters) -> (steps, filters / size)."""
    groups = [phrases[:, start : start + size] for start in range(0, phrases.shape[1], size)]
    return torch.stack([group.max(1).values for group in groups], 1)


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (w_ih @ x + w_hh @ h + bias).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def lstm(steps: Tensor, layer: RaggedLSTM, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One sentence through any RaggedLSTM: output (steps, width), h_n and c_n (rows, width)."""
    rows = 0
    ends: list[tuple[Tensor, Tensor]] = []
    for depth in range(layer.num_layers):
        outputs: list[Tensor] = []
        for direction in ["", "_reverse"][: 1 + layer.bidirectional]:
            end, h_t, c_t, found = f"l{depth}{direction}", h[rows], c[rows], [None] * len(steps)
            bias = sum(
                getattr(layer, f"{name}_{end}")
                for name in {True: ("bias_ih", "bias_hh"), "single": ("bias_ih",), False: ()}[layer.bias]
            )
            for t in reversed(range(len(steps))) if direction else range(len(steps)):
                h_t, c_t = lstm_cell(
                    steps[t], h_t, c_t, getattr(layer, f"weight_ih_{end}"), getattr(layer, f"weight_hh_{end}"), bias
                )
                if layer.proj_size:
                    h_t = getattr(layer, f"weight_hr_{end}") @ h_t
                found[t] = h_t
            outputs.append(torch.stack(found) if found else steps.new_zeros(0, layer.state_width))
            ends.append((h_t, c_t))
            rows += 1
        steps = torch.cat(outputs, 1)
    return steps, torch.stack([h for h, _ in ends]), torch.stack([c for _, c in ends])


def tower(sentence: Tensor, module: Tower) -> Tensor:
    """(words, width) -> (width of a state,)."""
    words = sentence
    if module.word_map is not None:
        words = torch.stack([linear(word, module.word_map.linear) for word in words])
    parts = []
    if module.walks:
        parts.append(walk(words, module))
    if module.word_maximum is not None:
        seen = [linear(word, module.word_maximum.linear).clamp(min=0) for word in words]
        parts.append(torch.stack(seen).max(0).values)
    if module.word_mean is not None:
        parts.append(sum(linear(word, module.word_mean.linear) for word in words) / len(words))
    return torch.cat(parts)


def linear(word: Tensor, module: nn.Module) -> Tensor:
    return module.weight[0] @ word + module.bias


def walk(words: Tensor, module: Tower) -> Tensor:
    """Convolution, pool, LSTM, each where there is one, and one vector for all steps."""
    if module.conv is not None:
        words = pool(conv(words, module.conv.weight, module.conv.bias), module.pool.size)
    ends = words[-1]
    if module.lstm is not None:
        zero = words.new_zeros(module.lstm.state_rows, module.hidden)
        words, last, _ = lstm(words, module.lstm, zero, zero)
        ends = torch.cat(list(last))
    return {"last": ends, "max": words.max(0).values, "mean": words.mean(0)}[module.reduce]


def two_towers(left: Tensor, right: Tensor, module: TwoTowers) -> Tensor:
    """One pair -> one logit, or one of each output."""
    logits = head(tower(left, module.left), tower(right, module.right), module)
    return logits[0] if module.outputs == 1 else logits


def head(u: Tensor, v: Tensor, module: nn.Module) -> Tensor:
    """Two states -> logits."""
    zero = torch.zeros_like(u)
    every = {
        "difference": u - v,
        "absolute difference": torch.maximum(u - v, v - u),
        "product": u * v,
        "positive difference": torch.maximum(u - v, zero),
        "negative difference": torch.maximum(v - u, zero),
    }
    features = torch.cat([every[name] for name in module.pair_features.features])
    units = (module.dense.weight @ features + module.dense.bias).clamp(min=0)
    return module.logit.weight @ units + module.logit.bias


def number_weights(module: nn.Module) -> nn.Module:
    """Deterministic weights that are different in every gate: constants would hide gates that are swapped."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def sentences(lengths: list[int], width: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, width, generator=generator, dtype=torch.float64).to(dtype) for length in lengths]


def pad(rows: list[Tensor], words: int | None = None, padding: float = float("nan")) -> tuple[Tensor, Tensor]:
    """Padded with NaN: whoever reads padding is found out."""
    words = max((len(row) for row in rows), default=0) if words is None else words
    padded = rows[0].new_full((len(rows), words, *rows[0].shape[1:]), padding)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded, torch.tensor([len(row) for row in rows])
