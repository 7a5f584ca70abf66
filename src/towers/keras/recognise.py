"""Two towers in the graph of a Keras network: each stage is found, or refused with what differs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from towers.keras.graph import Call, Graph, Layer, Source
from towers.keras.network_plan import Needs, NetworkPlan, TowerPlan
from towers.keras.settings import (
    ALLOWED,
    OneOf,
    check_settings,
    gates,
    is_ints,
    mixed_policy,
    setting,
    size,
    training_only,
)
from towers.keras.stage_axes import Axes, convolution, in_words, input_axes, pool_size, reshaped

WORDS_FOR_LAMBDAS = ("squeeze", "expand_dims", "subtract")
_IDENTITIES = {
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
}
_DRAWING = _IDENTITIES - {"ActivityRegularization", "Identity"}
_NUMBERS = (int, float)
_RESHAPES = {"Reshape", "Squeeze", "ExpandDims", "TFOpLambda"}
_TF_FUNCTIONS = {
    "squeeze": "squeeze",
    "compat.v1.squeeze": "squeeze",
    "expand_dims": "expand_dims",
    "math.subtract": "subtract",
    "subtract": "subtract",
}


@dataclass(frozen=True, eq=False)
class _Frame:
    """A model as it is used once: a model inside a model is fed by its caller."""

    graph: Graph
    caller: "_Frame | None" = None
    inputs: tuple[Source, ...] = ()


@dataclass(frozen=True)
class _Step:
    """A layer's call, in the frame that it belongs to."""

    frame: _Frame
    layer: Layer
    call: Call


def recognise(graph: Graph, lambdas: Mapping[str, str], major: int | None) -> NetworkPlan:
    """The two towers of a graph.

    Args:
        graph: of the whole network.
        lambdas: what Lambda layers do, by their names: "squeeze", "expand_dims" or "subtract". Their code is not read.
        major: the version of Keras: Keras 3 has another hard_sigmoid.

    Raises:
        ValueError: it is another network; the message says at which layer and what differs.
    """
    return _Reading(graph, lambdas, major).network()


@dataclass
class _Reading:
    graph: Graph
    lambdas: Mapping[str, str]
    major: int | None
    called: list[str] = field(default_factory=list[str])
    training: list[str] = field(default_factory=list[str])
    dropout: float = 0.0

    def network(self) -> NetworkPlan:
        for name, word in self.lambdas.items():
            if word not in WORDS_FOR_LAMBDAS:
                raise ValueError(f"lambdas: {name!r} is {word!r}; one of {', '.join(WORDS_FOR_LAMBDAS)} belongs there")
        layers = list(self.graph.all_layers())
        known = [layer.name for layer in layers if layer.kind == "Lambda"]
        if wrong := [name for name in self.lambdas if name not in known]:
            has = f"its Lambda layers: {', '.join(known)}" if known else _layers_but_lambdas(layers)
            raise ValueError(f"lambdas: {wrong[0]!r} is no Lambda layer of the file; {has}")
        if len(self.graph.outputs) != 1:
            raise ValueError(f"the network has {len(self.graph.outputs)} outputs; two towers have one, the score")
        step = self._produced(_Frame(self.graph), self.graph.outputs[0])
        step, logit, last = self._dense(step, "the score's Dense(1)")
        if size(logit, "units", "output_dim") != 1 or last not in ("sigmoid", "linear"):
            raise ValueError(f"{logit}: has {setting(logit, 'units', 'output_dim')} units and activation {last!r}; "
                             "the last layer of two towers is Dense(1), sigmoid or linear")  # fmt: skip
        if last == "linear":
            self.called.append("the file's network ends without a sigmoid: TwoTowers.forward is its output")
        step, dense, activation = self._dense(step, "the hidden Dense of the head")
        if activation != "relu":
            raise ValueError(f"{dense}: activation is {activation!r}; the head's first Dense has relu")
        step = self._past_identities(self._past_dropout(step))
        if not self._subtracts(step):
            raise ValueError(f"{step.layer}: two towers meet in Subtract, left minus right")
        if len(step.call.inputs) != 2:
            raise ValueError(f"{step.layer}: has {len(step.call.inputs)} inputs; a difference has two")
        left, right = (self._tower(self._produced(step.frame, source)) for source in step.call.inputs)
        if left.source is right.source:
            raise ValueError(f"{left.source}: feeds both towers; each has an input of its own")
        if left.hidden != right.hidden:
            raise ValueError(f"{left.lstm} has {left.hidden} units, {right.lstm} has {right.hidden}; both are compared")
        if (left.conv is right.conv) != (left.lstm is right.lstm):
            raise ValueError(f"{left.conv} and {left.lstm}: the towers share one and not the other; share both or none")
        self._note_sides(left, right)
        self._note_draws(self.graph, always=False)
        self._note_precision()
        for layer in self.graph.all_layers():
            if only := training_only(layer):
                self.training.append(f"{layer}: {', '.join(only)}: acts in training only, and is not carried over")
        units = size(dense, "units", "output_dim")
        training = tuple(dict.fromkeys(self.training))
        called = tuple(dict.fromkeys(self.called))
        return NetworkPlan(
            left, right, dense, logit, units, last == "sigmoid", (), training, self.dropout, called=called
        )

    def _pass(self, layer: Layer) -> None:
        """Note a layer that changes nothing but a training."""
        if layer.kind != "Identity":
            self.training.append(f"{layer}: acts in training only, and is not carried over")

    def _note_sides(self, left: TowerPlan, right: TowerPlan) -> None:
        order = [source.layer for source in self.graph.inputs]
        names = (left.source.name, right.source.name)
        if (
            not self.graph.by_name
            and all(name in order for name in names)
            and order.index(names[0]) > order.index(names[1])
        ):
            self.called.append(
                f"the file's first input, {names[1]!r}, is the right sentence: left is what Subtract subtracts from"
            )

    def _note_precision(self) -> None:
        if mixed := sorted({name for layer in self.graph.all_layers() if (name := mixed_policy(layer))}):
            self.called.append(
                f"layers compute in half precision in Keras ({', '.join(mixed)}), and here in the dtype of their "
                "numbers: results differ in the third digit"
            )

    def _note_draws(self, graph: Graph, *, always: bool) -> None:
        """Layers that were called with training=True, themselves or a model that they are inside of."""
        for layer in graph.layers.values():
            draws = always or any(call.options.get("training") for call in layer.calls)
            if layer.graph is not None:
                self._note_draws(layer.graph, always=draws)
            elif draws and (layer.kind in _DRAWING or any("dropout" in name for name in training_only(layer))):
                if self.major != 3:
                    raise ValueError(
                        f"{layer}: was called with training=True, so that Keras 1 and 2 draw at random in predict too; "
                        "no model of ours does"
                    )
                self.called.append(
                    f"{layer}: was called with training=True: in Keras model(x) draws at random, and predict(x) does "
                    "not; this model does so in training alone"
                )

    # From the score back to the towers.

    def _produced(self, frame: _Frame, source: Source) -> _Step:
        """The call of a layer, no model, that gives a tensor."""
        for _ in range(1000):
            layer = frame.graph.layers.get(source.layer)
            if layer is None:
                raise ValueError(f"the network's config is damaged: it has no layer {source.layer!r}")
            if source.output != 0:
                raise ValueError(
                    f"{layer}: its output {source.output} is used, such as a state of return_state=True; two towers "
                    "have the first output of each layer alone"
                )
            if layer.graph is not None:
                call = self._call(layer, source)
                if len(layer.graph.outputs) != 1:
                    raise ValueError(f"{layer}: has {len(layer.graph.outputs)} outputs; a tower has one")
                frame, source = _Frame(layer.graph, frame, call.inputs), layer.graph.outputs[0]
            elif layer.kind == "InputLayer" and frame.caller is not None:
                place = next((i for i, entry in enumerate(frame.graph.inputs) if entry.layer == layer.name), -1)
                if not 0 <= place < len(frame.inputs):
                    raise ValueError(f"{layer}: the network's config is damaged: nothing is given to it")
                frame, source = frame.caller, frame.inputs[place]
            else:
                call = Call((), {}) if layer.kind == "InputLayer" else self._call(layer, source)
                return _Step(frame, layer, call)
        raise ValueError("the network's config is damaged: its layers feed each other in a circle")

    def _call(self, layer: Layer, source: Source) -> Call:
        if not 0 <= source.call < len(layer.calls):
            raise ValueError(f"{layer}: the network's config is damaged: it has no call {source.call}")
        return layer.calls[source.call]

    def _before(self, step: _Step) -> _Step:
        if len(step.call.inputs) != 1:
            given = f", {', '.join(step.call.named)} among them" if step.call.named else ""
            raise ValueError(f"{step.layer}: has {len(step.call.inputs)} inputs{given}; one belongs there")
        return self._produced(step.frame, step.call.inputs[0])

    def _past_identities(self, step: _Step) -> _Step:
        while True:
            if step.layer.kind in _IDENTITIES:
                self._pass(step.layer)
            elif not (step.layer.kind == "Activation" and step.layer.config.get("activation") == "linear"):
                return step
            step = self._before(step)

    def _past_dropout(self, step: _Step) -> _Step:
        """Dropout on the states' difference is one of TwoTowers, too."""
        rate = setting(step.layer, "rate", "p")
        if step.layer.kind != "Dropout" or setting(step.layer, "noise_shape") is not None or type(rate) not in _NUMBERS:
            return step
        if not 0 <= rate < 1:
            raise ValueError(f"{step.layer}: rate is {rate}; a number from 0 to 1, 1 excluded, belongs there")
        self.dropout = float(rate)
        return self._before(step)

    def _dense(self, step: _Step, what: str) -> tuple[_Step, Layer, str]:
        """A Dense, with the activation that it has itself or that follows as a layer; and what comes before."""
        step = self._past_identities(step)
        after = None
        if step.layer.kind in ("Activation", "ReLU"):
            after = step.layer.config.get("activation") if step.layer.kind == "Activation" else _plain_relu(step.layer)
            step = self._past_identities(self._before(step))
        layer = step.layer
        if layer.kind != "Dense":
            raise ValueError(f"{layer}: is in the place where two towers have {what}")
        check_settings(layer)
        own = setting(layer, "activation", default="linear") or "linear"
        if after is not None and own != "linear":
            raise ValueError(f"{layer}: has two activations, {own!r} and {after!r}")
        return self._before(step), layer, str(own if after is None else after)

    def _subtracts(self, step: _Step) -> bool:
        layer = step.layer
        if layer.kind == "Lambda":
            return self._lambda(layer) == "subtract"
        return layer.kind == "Subtract" or (layer.kind == "TFOpLambda" and _tf_function(layer) == "subtract")

    def _lambda(self, layer: Layer) -> str:
        if layer.name not in self.lambdas:
            words = ", ".join(map(repr, WORDS_FOR_LAMBDAS[1:]))
            raise Needs(
                f"{layer}: is code, which is not read; if you know what it does, say so:",
                f'lambdas={{"{layer.name}": "squeeze"}} (or {words})',
                f"--lambda {layer.name}=squeeze (or {words})",
            )
        return self.lambdas[layer.name]

    # A tower, from its input to its last state.

    def _tower(self, step: _Step) -> TowerPlan:
        steps = [step]
        while steps[-1].layer.kind != "InputLayer":
            if len(steps) > 200:
                raise ValueError(
                    f"{step.layer}: the network's config is damaged: its layers feed each other in a circle"
                )
            steps.append(self._before(steps[-1]))
        return self._stages(list(reversed(steps)))

    def _stages(self, steps: list[_Step]) -> TowerPlan:
        found: dict[str, Layer] = {}
        axes = input_axes(steps[0].layer)
        words = axes[0]
        pool, kernel_words, width, filters = 1, 0, 0, 0
        stages = [(str(steps[0].layer), in_words(axes))]
        for step in steps[1:]:
            layer, kind = step.layer, step.layer.kind
            if kind in ALLOWED:
                check_settings(layer)
            if kind in _IDENTITIES:
                self._pass(layer)
            elif kind == "Activation" and OneOf(("linear",))(layer.config.get("activation")):
                pass
            elif kind == "Embedding" and not found and len(axes) == 1:
                found["embedding"] = layer
                axes = (*axes, size(layer, "output_dim"))
            elif kind in ("Conv2D", "Convolution2D", "Conv1D", "Convolution1D") and "conv" not in found:
                found["conv"] = layer
                kernel_words, width, filters = convolution(layer, axes)
                steps_left = None if axes[0] is None else axes[0] - kernel_words + 1
                if steps_left is not None and steps_left < 1:
                    raise ValueError(f"{layer}: {axes[0]} words are fewer than its kernel's {kernel_words}")
                axes = (steps_left, *(1,) * (kind.endswith("2D")), filters)
            elif kind == "MaxPooling1D" and "conv" in found and "lstm" not in found and pool == 1 and len(axes) == 2:
                pool = pool_size(layer, filters)
                axes = (axes[0], filters // pool)
            elif kind in ("LSTM", "CuDNNLSTM") and "conv" in found and "lstm" not in found and len(axes) == 2:
                found["lstm"] = layer
                if layer.config.get("return_sequences"):
                    raise ValueError(f"{layer}: return_sequences is True; a tower gives its last state")
                axes = (size(layer, "units", "output_dim"),)
            elif (kind in _RESHAPES or kind == "Lambda") and "lstm" not in found:
                axes = self._reshaped(step, axes)
            else:
                raise ValueError(f"{layer}: has no place there: {_PLACES}")
            stages.append((str(layer), in_words(axes)))
        for part, kind in (("conv", "Conv2D"), ("lstm", "LSTM")):
            if part not in found:
                raise ValueError(f"{steps[-1].layer}: no {kind} leads to it: {_PLACES}")
        return TowerPlan(
            found["conv"],
            found["lstm"],
            found.get("embedding"),
            steps[0].layer,
            words,
            width,
            kernel_words,
            filters,
            pool,
            size(found["lstm"], "units", "output_dim"),
            gates(found["lstm"], self.major),
            tuple(stages),
        )

    def _reshaped(self, step: _Step, axes: Axes) -> Axes:
        """After a layer that may only add or take away axes of size 1."""
        layer = step.layer
        kind = self._lambda(layer) if layer.kind == "Lambda" else layer.kind
        kind = _tf_function(layer) if kind == "TFOpLambda" else kind.lower().replace("expanddims", "expand_dims")
        if kind == "reshape":
            return reshaped(layer, axes)
        axis = setting(layer, "axis", default=step.call.options.get("axis"))
        if is_ints(axis) and len(axis) == 1:
            axis = axis[0]
        if layer.kind == "Lambda" or axis is None:
            if kind == "expand_dims":
                return (*axes, 1)
            axis = axes.index(1) + 1 if axes.count(1) == 1 else 0
        if type(axis) is not int:
            raise ValueError(f"{layer}: axis is {str(axis)[:60]!r}; an int belongs there")
        rank = len(axes) + 1 + (kind == "expand_dims")
        place = (axis + rank if axis < 0 else axis) - 1
        if kind == "expand_dims" and 0 <= place <= len(axes):
            return (*axes[:place], 1, *axes[place:])
        if kind == "squeeze" and 0 <= place < len(axes) and axes[place] == 1:
            return (*axes[:place], *axes[place + 1 :])
        raise ValueError(f"{layer}: cannot take away axis {axis} of {in_words(axes)}")


_PLACES = (
    "a tower is Conv2D over neighbouring words, squeeze, MaxPooling1D over features, LSTM, with at most an Embedding "
    "in front"
)


def _layers_but_lambdas(layers: list[Layer]) -> str:
    return f"it has none, and needs none said: {', '.join(layer.name for layer in layers)}"[:500]


def _plain_relu(layer: Layer) -> str:
    settings = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
    if any(layer.config.get(name, value) != value for name, value in settings.items()):
        raise ValueError(f"{layer}: has a limit or a slope; the head's relu has none")
    return "relu"


def _tf_function(layer: Layer) -> str:
    function = str(layer.config.get("function", ""))
    if function not in _TF_FUNCTIONS:
        raise ValueError(f"{layer}: calls {function[:60]!r} of TensorFlow, which is not read")
    return _TF_FUNCTIONS[function]
