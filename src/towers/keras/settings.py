"""What each Keras layer may say in its config, and what that means here: an allow-list, setting by setting.

A setting that is in no list is accepted only where it is off (None or False): what a later Keras adds is refused by its
name, never ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

from towers.keras.graph import Json, Layer


@dataclass(frozen=True)
class OneOf:
    """Whether a value equals one of these, in value and kind."""

    values: tuple[object, ...]

    def __call__(self, found: Any) -> bool:
        """Whether `found` is one."""
        return any(found == value and isinstance(found, type(value)) for value in self.values)


Rule = Callable[[Any], bool] | None
"""Whether a value is one that is read; None: the setting says nothing about results."""


def one_of(*values: object) -> Rule:
    """Equal to one of these, in value and kind."""
    return OneOf(values)


def ones(found: Any) -> bool:
    """1, or a list of ones."""
    return found == 1 or (is_ints(found) and set(found) == {1})


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value of JSON is a list."""
    return isinstance(value, list)


def is_ints(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of ints (True and False are none)."""
    return is_list(value) and all(type(entry) is int for entry in value)


_EVERYWHERE: dict[str, Rule] = {
    **dict.fromkeys(("name", "trainable", "dtype", "batch_input_shape", "batch_shape", "input_dtype", "seed"), None),
    **dict.fromkeys(("init", "inner_init", "forget_bias_init"), None),
    **dict.fromkeys((f"{part}_initializer" for part in ("kernel", "recurrent", "bias", "embeddings")), None),
    **dict.fromkeys(
        (f"{part}_regularizer" for part in ("kernel", "recurrent", "bias", "embeddings", "activity")), None
    ),
    **dict.fromkeys((f"{part}_constraint" for part in ("kernel", "recurrent", "bias", "embeddings")), None),
    **dict.fromkeys(("W_regularizer", "U_regularizer", "b_regularizer", "W_constraint", "b_constraint"), None),
}
_LINEAR = one_of("linear", None)
_CONV: dict[str, Rule] = {
    "filters": None,
    "nb_filter": None,
    "kernel_size": None,
    "nb_row": None,
    "nb_col": None,
    "filter_length": None,
    "input_dim": None,
    "input_length": None,
    "strides": ones,
    "subsample": ones,
    "subsample_length": ones,
    "padding": one_of("valid"),
    "border_mode": one_of("valid"),
    "data_format": one_of("channels_last"),
    "dim_ordering": one_of("tf"),
    "dilation_rate": ones,
    "groups": ones,
    "activation": _LINEAR,
    "use_bias": one_of(True, False),
    "bias": one_of(True, False),
}
_RECURRENT: dict[str, Rule] = {
    "units": None,
    "output_dim": None,
    "input_dim": None,
    "input_length": None,
    "activation": one_of("tanh"),
    "recurrent_activation": one_of("sigmoid", "hard_sigmoid"),
    "inner_activation": one_of("sigmoid", "hard_sigmoid"),
    "use_bias": one_of(True, False),
    "bias": one_of(True),
    "unit_forget_bias": None,
    "forget_bias": None,
    "go_backwards": one_of(False),
    "stateful": one_of(False),
    "time_major": one_of(False),
    "return_state": None,
    "return_sequences": None,
    "unroll": None,
    "implementation": None,
    "consume_less": None,
    "dropout": None,
    "recurrent_dropout": None,
    "dropout_W": None,
    "dropout_U": None,
    "use_cudnn": None,
    "zero_output_for_mask": None,
    "reset_after": None,
}
_DENSE: dict[str, Rule] = {
    "units": None,
    "output_dim": None,
    "input_dim": None,
    "activation": None,
    "use_bias": one_of(True, False),
    "bias": one_of(True, False),
    "lora_rank": one_of(None),
    "quantization_config": one_of(None),
}
ALLOWED: dict[str, dict[str, Rule]] = {
    "Conv2D": _CONV,
    "Convolution2D": _CONV,
    "Conv1D": _CONV,
    "Convolution1D": _CONV,
    "LSTM": _RECURRENT,
    "CuDNNLSTM": _RECURRENT,
    "Dense": _DENSE,
    "Embedding": {
        **dict.fromkeys(("input_dim", "output_dim", "input_length", "weights"), None),
        "mask_zero": one_of(False),
        "lora_rank": one_of(None),
        "quantization_config": one_of(None),
        "dropout": None,
    },
    "MaxPooling1D": {
        "pool_size": None,
        "pool_length": None,
        "strides": None,
        "stride": None,
        "padding": one_of("valid"),
        "border_mode": one_of("valid"),
        "data_format": one_of("channels_first"),
    },
}
_WHY = {
    ("MaxPooling1D", "data_format"): "a FeaturePool takes the maximum over neighbouring features, as "
    'data_format="channels_first" does here; this one takes it over time',
    ("Embedding", "mask_zero"): "masks are not followed: lengths are data here",
}


def check_settings(layer: Layer) -> None:
    """Refuse a setting that no layer of towers has.

    Raises:
        ValueError: names the layer, the setting and what was found.
    """
    allowed = ALLOWED[layer.kind]
    for name, value in layer.config.items():
        if name in _EVERYWHERE:
            continue
        rule = allowed.get(name, one_of(None, False))
        if rule is not None and not rule(value):
            wanted = " or ".join(map(repr, rule.values)) if isinstance(rule, OneOf) else "1"
            why = _WHY.get((layer.kind, name))
            problem = f": {why}" if why else f", which no layer of ours has; {wanted} belongs there"
            raise ValueError(f"{layer}: {name} is {repr(value)[:100]}{problem}")


def setting(layer: Layer, *names: str, default: Any = None) -> Any:
    """The first of these names that the config has (Keras 1 and 2 have different ones)."""
    return next((layer.config[name] for name in names if name in layer.config), default)


def size(layer: Layer, *names: str) -> int:
    """A setting that is an int of at least 1, or a list of one.

    Raises:
        ValueError: it is not.
    """
    value = setting(layer, *names)
    if is_ints(value) and len(value) == 1:
        value = value[0]
    if type(value) is not int or not 1 <= value < 1 << 31:
        raise ValueError(f"{layer}: {names[0]} is {str(value)[:60]!r}; an int of at least 1 belongs there")
    return value


def gates(lstm: Layer, major: int | None) -> str:
    """RaggedLSTM's recurrent_activation. What "hard_sigmoid" means depends on the version that wrote the file."""
    default = "sigmoid" if lstm.kind == "CuDNNLSTM" or major == 3 else "hard_sigmoid"
    name = setting(lstm, "recurrent_activation", "inner_activation", default=default)
    return "hard_sigmoid_keras2" if name == "hard_sigmoid" and major in (1, 2) else str(name)


def has_bias(layer: Layer) -> bool:
    """Whether a layer has a bias: `use_bias`, in Keras 1 `bias`."""
    return bool(setting(layer, "use_bias", "bias", default=True))


def mixed_policy(layer: Layer) -> str | None:
    """The dtype policy of a layer that computes in another dtype than that of its numbers, such as "mixed_float16"."""
    policy: Any = layer.config.get("dtype")
    if isinstance(policy, dict):
        policy = cast("Json", policy).get("config")
    if isinstance(policy, dict):
        policy = cast("Json", policy).get("name")
    return policy if isinstance(policy, str) and policy.startswith("mixed_") else None


def training_only(layer: Layer) -> Json:
    """Settings that change training and not results: dropout, regularizers, constraints."""
    found: Json = {}
    for name, value in layer.config.items():
        if ("dropout" in name and value not in (0, None)) or (name.endswith(("regularizer", "constraint")) and value):
            found[name] = value
    return found
