"""What hooks and attributes reach of their own module is in a copy the copy, however they reach it."""

import functools
import threading
import types
import weakref
from collections import deque
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers.contracts import contract, verify
from towers.contracts.proofs.copies import real_copy

NET = None
"""The module of the test that runs, as a notebook has it."""


def by_global(x):
    NET.got = x


def by_a_function_of_a_global(x):
    by_global(x)


class Keeper:
    """Something of the program that keeps a module, and what no copy can be made of."""

    def __init__(self, model):
        self.model, self.lock = model, threading.Lock()

    def keep(self, x):
        with self.lock:
            self.model.got = x


class Slotted:
    __slots__ = ("__weakref__", "model")


def called_again(net):
    """Functions that close over each other."""
    steps = {}

    def first(x, times=2):
        return steps["second"](x, times)

    def second(x, times):
        net.got = x
        return x if times == 0 else steps["first"](x, times - 1)

    steps |= {"first": first, "second": second}
    return first


def nonlocal_of_two(net):
    last = None

    def write(x):
        nonlocal last
        last = x
        net.count = 1

    def read():
        return last

    net.read = read
    return lambda x: (write(x), setattr(net, "got", net.read()))


def ways(net):
    """Functions that set `got` of a module; each reaches it in another way."""
    keeper, slotted, outer, stack = Keeper(net), Slotted(), nn.Module(), []
    slotted.model, outer.child, net.stack = net, net, stack

    def by_default(x, me=net):
        me.got = x

    def by_named_default(x, *, me=net):
        me.got = x

    @functools.wraps(by_default)
    def wrapped(x):
        return by_default(x)

    def on_itself(x):
        on_itself.model.got = x

    on_itself.model = net
    return {
        "closure": lambda x: setattr(net, "got", x),
        "default": by_default,
        "named default": by_named_default,
        "wrapped": wrapped,
        "attribute of a function": on_itself,
        "partial": functools.partial(lambda me, x: setattr(me, "got", x), net),
        "partial of a closure": functools.partial(lambda more, x: setattr(net, "got", x), 1),
        "bound method": net.keep,
        "method of a closure": types.MethodType(lambda me, x: setattr(net, "got", x), net),
        "through an object": lambda x: keeper.keep(x),
        "through slots": lambda x: setattr(slotted.model, "got", x),
        "through a list": (lambda held: lambda x: setattr(held[0][0], "got", x))([(net, 1)]),
        "through a dict and a deque": (lambda held: lambda x: setattr(held[0]["a"], "got", x))(deque([{"a": net}])),
        "through the module around it": lambda x: setattr(outer.child, "got", x),
        "weak reference": (lambda ref: lambda x: setattr(ref(), "got", x))(weakref.ref(net)),
        "weak method": (lambda ref: lambda x: ref()(x))(weakref.WeakMethod(net.keep)),
        "weak proxy": (lambda ref: lambda x: setattr(ref, "got", x))(weakref.proxy(net)),
        "weak set": (lambda refs: lambda x: setattr(next(iter(refs)), "got", x))(weakref.WeakSet([net])),
        "weak keys": (lambda refs: lambda x: setattr(next(iter(refs)), "got", x))(weakref.WeakKeyDictionary({net: 1})),
        "method of its list": (lambda add: lambda x: (add(x), setattr(net, "got", net.stack.pop())))(stack.append),
        "list of both": lambda x: (stack.append(x), setattr(net, "got", net.stack.pop())),
        "functions of each other": called_again(net),
        "nonlocal of two": nonlocal_of_two(net),
        "cached": (lambda get: lambda x: setattr(get(), "got", x))(functools.cache(lambda: net)),
        "global": by_global,
        "function of a global": by_a_function_of_a_global,
    }


class Linked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.calls = ways(self)
        self.in_a_tuple = (1, lambda x: setattr(self, "got", x), self)
        self.attributes = SimpleNamespace(ref=weakref.ref(self), keep=weakref.WeakMethod(self.keep))
        self.keys, self.values = weakref.WeakKeyDictionary(), weakref.WeakValueDictionary()
        self.keys[self.layer], self.values["layer"] = "layer", self.layer

    def keep(self, x):
        self.got = x

    @contract
    def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
        others = {"tuple": self.in_a_tuple[1], "weak": lambda x: setattr(self.attributes.ref(), "got", x)}
        for name, call in (self.calls | others | {"weak method": self.attributes.keep()}).items():
            self.got = None
            call(x)
            if self.got is not x:
                raise TypeError(name)
        if self.in_a_tuple[2] is not self or self.keys[self.layer] != "layer" or self.values["layer"] is not self.layer:
            raise TypeError("attributes")
        return self.layer(x)


def test_however_it_reaches_its_module_a_copy_reaches_the_copy(monkeypatch):
    net = Linked()
    monkeypatch.setitem(globals(), "NET", net)
    net(torch.zeros(2, 4))
    net.got = "mine"
    proof = verify(net)
    assert proof.verdict == "proven", proof
    assert net.got == "mine"
    assert net.stack == []
    assert proof.tried > 8


class Hooked(nn.Module):
    """Layers whose results the network reads where hooks have put them, as U-Nets and probes do."""

    def __init__(self):
        super().__init__()
        self.down, self.up, self.skips = nn.Linear(4, 4), nn.Linear(4, 4), {}
        self.down.register_forward_hook(lambda m, i, o: self.skips.__setitem__("down", o))
        self.up.register_forward_pre_hook(lambda m, i: (i[0] + self.skips.pop("down"),))
        inner = self.up.forward
        self.up.forward = lambda x: self.counted(inner(x))

    def counted(self, x):
        self.count += 1
        return x

    @contract
    def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
        self.count = 0
        result = self.up(self.down(x))
        return result if self.count == 1 and not self.skips else result[:1]


def test_results_that_hooks_keep_for_the_network_itself():
    module = Hooked()
    proof = verify(module)
    assert proof.verdict == "proven", proof
    assert module.skips == {}
    assert "count" not in vars(module)


def test_parameters_that_a_function_closes_over_are_those_of_the_copy():
    module = Hooked()
    module.scale = nn.Parameter(torch.ones(4))
    scale, elsewhere = module.scale, torch.ones(4)
    module.act = lambda x: x * scale + elsewhere
    twin = real_copy(module)
    cells = {cell.cell_contents for cell in twin.act.__closure__}
    assert cells == {twin.scale, elsewhere}
    assert twin.scale is not scale


class Uncopied:
    def __init__(self, model):
        self.model = model

    def __copy__(self):
        raise TypeError("only one")


def test_what_no_copy_can_be_made_of_is_named():
    module = Hooked()
    only = Uncopied(module)
    module.up.register_forward_hook(lambda m, i, o: setattr(only.model, "seen", len(i)))
    proof = verify(module)
    assert proof.verdict == "proven"
    told = f"through a {__name__}.Uncopied the code reaches the module itself, not the copy that is run"
    assert told in proof.assumptions
    assert not hasattr(module, "seen")
