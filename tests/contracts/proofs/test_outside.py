"""After verify everything outside of the module's copy is as if nothing had run: what hooks keep, globals, classes."""

import functools
import itertools
import random
import sys
import threading
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from towers.contracts import contract, trace, verify

SECONDS = 20


def described(value, seen=None):
    """Some state as plain values, deeply: two of it are equal if nothing has changed."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return f"number {seen[id(value)]}"
    seen[id(value)] = len(seen)
    kind = type(value).__name__
    if isinstance(value, FakeTensor):
        return kind
    if isinstance(value, Tensor):
        grad = described(value.grad, seen) if value.is_leaf else None
        return kind, value.tolist(), value.requires_grad, value._version, grad
    if isinstance(value, torch.Generator):
        return kind, value.get_state().tolist()
    if isinstance(value, random.Random):
        return kind, value.getstate()
    if isinstance(value, (np.ndarray, bytearray)):
        return kind, value.tolist() if isinstance(value, np.ndarray) else bytes(value)
    if isinstance(value, dict):
        items = [(str(key), described(item, seen)) for key, item in value.items()]
        return kind, items, described(vars(value), seen) if hasattr(value, "__dict__") else None
    if isinstance(value, (set, frozenset)):
        return kind, sorted(map(str, value))
    if isinstance(value, (list, tuple, deque)):
        return kind, [described(item, seen) for item in value]
    if hasattr(value, "cache_info"):
        return kind, value.cache_info().currsize
    if isinstance(value, type):
        names = [name for name in vars(value) if not name.startswith("__")]
        return kind, [(name, described(vars(value)[name], seen)) for name in names]
    if hasattr(value, "__closure__"):
        cells = [described(cell.cell_contents, seen) for cell in value.__closure__ or ()]
        return kind, cells, described([value.__defaults__, value.__kwdefaults__, vars(value)], seen)
    if hasattr(value, "__dict__") and not isinstance(value, ModuleType):
        return kind, described(vars(value), seen)
    return repr(value)


# Programs of the kind that people write.

ACTIVATIONS, NORMS, AVERAGE = {}, [], None
CALLS = 0
MASKS = {}
SCALES = torch.ones(4)
NOISE = torch.Generator().manual_seed(3)
DICE = random.Random(5)
MOMENTS = Counter()
REGISTRY = OrderedDict()
SEEN_BY = weakref.WeakKeyDictionary()
TEACHER = nn.BatchNorm1d(4)
HELPERS = ModuleType("helpers_of_test_outside")
HELPERS.STEPS, HELPERS.LOG = 0, []
LOCAL = threading.local()
LOCAL.depth = []
TABLE = np.zeros(3)
QUEUE = deque(maxlen=3)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)


def hooked(hook, kind="register_forward_hook"):
    class Hooked(Base):
        @contract
        def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
            return self.layer(x)

    module = Hooked()
    getattr(module.layer, kind)(hook)
    return module


def keeps_activations_in_a_list():
    cache = []
    return hooked(lambda m, i, o: cache.append(o)), cache


def keeps_activations_by_name():
    return hooked(lambda m, i, o: ACTIVATIONS.__setitem__("layer", o.detach())), ACTIVATIONS


def appends_by_a_bound_method():
    calls = []
    return hooked(lambda m, i: calls.extend(map(len, i)), "register_forward_pre_hook"), calls


def counts_with_nonlocal():
    calls = 0

    def hook(m, i, o):
        nonlocal calls
        calls += 1

    return hooked(hook), hook


def hook_of_a_recorder():
    class Recorder:
        def __init__(self):
            self.shapes, self.last = [], None

        def save(self, m, i, o):
            self.last = o
            self.shapes.append(tuple(o.shape))

    recorder = Recorder()
    return hooked(lambda *args: recorder.save(*args)), recorder


def back_to_the_model_itself():
    module = hooked(lambda m, i, o: None)
    module.outputs = []
    module.layer.register_forward_hook(lambda m, i, o: module.outputs.append(o))
    return module, module


def gradients_kept_by_a_tensor_hook():
    kept = []

    def hook(m, i, o):
        if o.requires_grad:
            o.register_hook(kept.append)
        return o * 1

    return hooked(hook), kept


def forward_of(body):
    """A module whose forward runs a function of a (batch, 4) tensor."""

    class Runs(Base):
        @contract
        def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
            return body(x)

    return Runs()


def counts_calls():
    def body(x):
        global CALLS
        CALLS += 1
        return x * 2

    return forward_of(body), SimpleNamespace(read=lambda: CALLS)


def average_in_a_global():
    def body(x):
        global AVERAGE
        now = x.detach().mean(0)
        AVERAGE = now if AVERAGE is None else 0.9 * AVERAGE + 0.1 * now
        return x - AVERAGE

    return forward_of(body), SimpleNamespace(read=lambda: AVERAGE)


def masks_by_size():
    def body(x):
        if len(x) not in MASKS:
            MASKS[len(x)] = torch.ones(len(x), 1)
        return x * MASKS[len(x)]

    return forward_of(body), MASKS


def writes_a_global_tensor():
    def body(x):
        SCALES.mul_(0.5).add_(1)
        return x * SCALES

    return forward_of(body), SCALES


def writes_past_the_version_of_a_tensor():
    def body(x):
        SCALES.data.add_(1)
        SCALES.numpy()[0] = 7
        return x * SCALES

    return forward_of(body), SCALES


def draws_from_a_global_generator():
    return forward_of(lambda x: x + torch.rand(4, generator=NOISE) + DICE.random()), [NOISE, DICE]


def running_statistics_of_a_class():
    class Stats(Base):
        mean, count, history = torch.zeros(4), 0, []

        @contract
        def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
            cls = type(self)
            cls.count += 1
            cls.mean = cls.mean + (x.detach().sum(0) - cls.mean) / cls.count
            self.history.append(cls.mean)
            return x - cls.mean

    return Stats(), Stats


def logger_like_wandb():
    @dataclass
    class Run:
        step: int = 0
        summary: dict = field(default_factory=dict)
        history: list = field(default_factory=list)

        def log(self, values):
            self.step += 1
            self.summary |= values
            self.history.append({"step": self.step, **values})

    run = Run(history=[{"step": 0}])

    def body(x):
        run.log({"width": x.shape[1], "x": x})
        return torch.relu(x)

    return forward_of(body), run


def memo_as_a_default():
    def positions(x, memo={}, *, order=[]):  # noqa: B006
        memo.setdefault("first", x)
        order.append(len(order))
        return x + 1

    return forward_of(lambda x: positions(x)), positions


def counts_on_the_function():
    def body(x):
        body.calls += 1
        body.last = x
        return x

    body.calls = 0
    return forward_of(body), body


def registry_of_calls():
    def body(x):
        REGISTRY["new"] = x
        REGISTRY.move_to_end("old")
        MOMENTS["calls"] += 1
        QUEUE.append(x)
        return x

    REGISTRY.update(old=1, other=2)
    QUEUE.extend("abc")
    return forward_of(body), [REGISTRY, MOMENTS, QUEUE]


def teacher_in_train_mode():
    def body(x):
        with torch.no_grad():
            return x + TEACHER.eval()(x)

    return forward_of(body), TEACHER


def state_in_another_file():
    sys.modules[HELPERS.__name__] = HELPERS

    def body(x):
        HELPERS.STEPS += 1
        HELPERS.LOG.append(HELPERS.STEPS)
        HELPERS.last = x
        return x

    return forward_of(body), SimpleNamespace(read=lambda: dict(vars(HELPERS)))


def state_of_a_thread_and_an_array():
    def body(x):
        LOCAL.__dict__.setdefault("depth", []).append(x)
        TABLE[0] += 1
        return x

    return forward_of(body), [TABLE]


def by_module_in_a_weak_dictionary():
    class Seen(Base):
        @contract
        def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
            SEEN_BY[self] = x
            return self.layer(x)

    module = Seen()
    SEEN_BY[module] = "mine"
    return module, SimpleNamespace(read=lambda: list(SEEN_BY.values()))


def own_function_of_autograd():
    class Twice(torch.autograd.Function):
        saved = []  # noqa: RUF012

        @staticmethod
        def forward(ctx, x):
            Twice.saved.append(x)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            Twice.saved.append(grad)
            return grad * 2

    return forward_of(lambda x: Twice.apply(x)), Twice


def shared_by_its_own_deepcopy():
    class Shared:
        def __init__(self):
            self.log = []

        def __deepcopy__(self, memo):
            return self

    class Logs(Base):
        def __init__(self):
            super().__init__()
            self.shared = Shared()

        @contract
        def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
            self.shared.log.append(x)
            return x

    module = Logs()
    return module, module.shared


def shrinks_and_sorts():
    order, pool, names = [3, 1, 2], {1, 2, 3}, {"a": 1, "b": 2}

    def body(x):
        order.sort()
        if pool:
            pool.pop()
        names["b"] = names.pop("a", 0)
        return x

    return forward_of(body), [order, pool, names]


def gradients_of_a_global():
    weight = torch.ones(4, requires_grad=True)

    def body(x):
        with torch.enable_grad():
            (weight * x.detach()).sum().backward()
        return x

    return forward_of(body), weight


def a_local_memory_shared_by_two():
    memory = defaultdict(list)
    first = functools.partial(lambda store, x: store["first"].append(x), memory)

    def body(x):
        first(x)
        memory["second"].append(x.shape)
        return x

    return forward_of(body), memory


def wrong_after_all():
    log = []

    def body(x):
        log.append(x)
        return x[:, :3]

    return forward_of(body), log


def only_for_three():
    log = []

    def body(x):
        log.append(x)
        return x + torch.ones(3, 4)

    return forward_of(body), log


def raises_in_the_middle():
    log = []

    def body(x):
        log.append(x)
        raise KeyError("nothing")

    return forward_of(body), log


SUCCEED = {"proven"}
OPEN = {"proven", "not provable"}  # it holds, and what the symbols cannot follow is another matter than harm
PROGRAMS = {
    keeps_activations_in_a_list: SUCCEED,
    keeps_activations_by_name: SUCCEED,
    appends_by_a_bound_method: OPEN,
    counts_with_nonlocal: SUCCEED,
    hook_of_a_recorder: SUCCEED,
    back_to_the_model_itself: SUCCEED,
    gradients_kept_by_a_tensor_hook: SUCCEED,
    counts_calls: SUCCEED,
    average_in_a_global: SUCCEED,
    masks_by_size: OPEN,
    writes_a_global_tensor: OPEN,
    writes_past_the_version_of_a_tensor: OPEN,
    draws_from_a_global_generator: SUCCEED,
    running_statistics_of_a_class: OPEN,
    logger_like_wandb: SUCCEED,
    memo_as_a_default: SUCCEED,
    counts_on_the_function: SUCCEED,
    registry_of_calls: SUCCEED,
    teacher_in_train_mode: SUCCEED,
    state_in_another_file: SUCCEED,
    state_of_a_thread_and_an_array: SUCCEED,
    by_module_in_a_weak_dictionary: SUCCEED,
    own_function_of_autograd: SUCCEED,
    shared_by_its_own_deepcopy: SUCCEED,
    shrinks_and_sorts: SUCCEED,
    gradients_of_a_global: OPEN,
    a_local_memory_shared_by_two: SUCCEED,
    wrong_after_all: {"failed"},
    only_for_three: {"specialised"},
    raises_in_the_middle: {"failed"},
}


def state_of(held):
    return described(held.read() if hasattr(held, "read") else held)


def put_back_but_for(proof):
    """What an assumption says could not be put back."""
    start = "what the code changes outside of the module is put back, but for "
    return [text.removeprefix(start) for text in proof.assumptions if text.startswith(start)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_is_as_if_nothing_had_run(program):
    module, held = program()
    before = state_of(held)
    proof = verify(module, seconds=SECONDS)
    assert state_of(held) == before
    assert proof.verdict in PROGRAMS[program], proof
    assert not put_back_but_for(proof)


# Each kind of thing that is written, at each place where it may be.

WRITES = {
    "[]": "{}.append(x)",
    "[2, 1]": "{}.sort()",
    "{}": "{}[len({})] = x",
    "dict(a=1, b=2)": "{}['b'] = {}.pop('a', x)",
    "{1, 2}": "{}.pop() if {} else {}.add(x)",
    "deque([1], maxlen=2)": "{}.append(x)",
    "OrderedDict(a=1, b=2)": "{}.move_to_end('a')",
    "Counter()": "{}['calls'] += 1",
    "defaultdict(list)": "{}['x'].append(x)",
    "bytearray(2)": "{}.append(1)",
    "numpy.zeros(2)": "{}.__iadd__(1)",
    "random.Random(3)": "{}.random()",
    "numpy.random.RandomState(3)": "{}.rand()",
    "numpy.random.default_rng(3)": "{}.random()",
    "torch.Generator().manual_seed(2)": "torch.rand(2, generator={})",
    "torch.nn.BatchNorm1d(4)": "{}.train(not {}.training)",
    "SimpleNamespace(n=0)": "{}.n += 1",
    "Slotted()": "{}.n += 1",
    "[{'inner': []}]": "{}[0]['inner'].append(x)",
    "cache(str)": "{}(type(x))",
    "partial(print, [])": "{}.args[0].append(x)",
}

PLACES = {
    "global": """
HELD = [{makes}]
def step(x):
{writes}
""",
    "closure": """
def make(HELD):
    def step(x):
{writes}
    return step
step = make([{makes}])
""",
    "hook": """
def make(HELD):
    def write(x):
{writes}
    return lambda module, given, result: write(result)
step = make([{makes}])
""",
    "default": """
def step(x, HELD=[{makes}]):
{writes}
""",
    "named_default": """
def step(x, *, HELD=[{makes}]):
{writes}
""",
    "class": """
class Log:
    HELD = [{makes}]
    @classmethod
    def write(cls, x):
        HELD = cls.HELD
{writes}
def step(x):
    Log.write(x)
""",
    "instance": """
class Tracker:
    def __init__(self):
        self.held = [{makes}]
    def write(self, x):
        HELD = self.held
{writes}
TRACKER = Tracker()
def step(x):
    TRACKER.write(x)
""",
    "function": """
def step(x):
    HELD = step.held
{writes}
step.held = [{makes}]
""",
}


class Slotted:
    __slots__ = ("n",)

    def __init__(self):
        self.n = 0


class Steps(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    @contract
    def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
        self.step(x)
        return x


def run_of_text(text):
    space = {"__name__": "written_for_test_outside", "Slotted": Slotted, "cache": functools.cache, "numpy": np}
    space |= {"Counter": Counter, "OrderedDict": OrderedDict, "defaultdict": defaultdict, "deque": deque}
    space |= {"SimpleNamespace": SimpleNamespace, "partial": functools.partial, "random": random, "torch": torch}
    exec(text, space)
    return space


def with_slots(value):
    """What a test sees of a list of all kinds of things."""
    parts = {Slotted: lambda each: each.n, functools.partial: lambda each: each.args}
    parts |= {np.random.RandomState: lambda each: str(each.get_state()[2:])}
    parts |= {np.random.Generator: lambda each: str(each.bit_generator.state)}
    return [parts[type(each)](each) if type(each) in parts else each for each in value]


@pytest.mark.parametrize("place", PLACES)
def test_each_kind_of_thing_at_each_place(place):
    writes = [f"HELD[{at}]".join(text.split("{}")) for at, text in enumerate(WRITES.values())]
    indent = "        " if place in ("closure", "hook", "class", "instance") else "    "
    space = run_of_text(
        PLACES[place].format(makes=", ".join(WRITES), writes="\n".join(indent + each for each in writes))
    )
    step, log, tracker = space["step"], space.get("Log"), space.get("TRACKER")
    if place == "hook":
        module = nn.Module()
        module = Steps(nn.Identity())
        module.step.register_forward_hook(step)
        held = inner_closure(step)
    else:
        module = Steps(step)
        held = {
            "global": lambda: space["HELD"],
            "closure": lambda: step.__closure__[0].cell_contents,
            "default": lambda: step.__defaults__[0],
            "named_default": lambda: step.__kwdefaults__["HELD"],
            "class": lambda: log.HELD,
            "instance": lambda: tracker.held,
            "function": lambda: step.held,
        }[place]()
    before = described(with_slots(held))
    assert verify(module, seconds=SECONDS).verdict == "proven"
    assert described(with_slots(held)) == before
    module(torch.zeros(2, 4))
    after = described(with_slots(held))
    assert len(after[1]) == len(WRITES)
    assert all(one != other for one, other in zip(after[1], before[1], strict=True))  # each write is one


def inner_closure(step):
    return step.__closure__[0].cell_contents.__closure__[0].cell_contents


BOUND = {
    "global": ("N = 0\ndef step(x):\n    global N\n    N += 1", "N"),
    "new global": ("def step(x):\n    global N\n    N = x", "globals_of_text.get('N')"),
    "deleted global": ("N = 3\ndef step(x):\n    global N\n    del N", "N"),
    "by globals()": ("N = 0\ndef step(x):\n    globals()['N'] += 1", "N"),
    "nonlocal": (
        "def make():\n    n = 0\n    def step(x):\n        nonlocal n\n        n += 1\n    return step\nstep = make()",
        "step.__closure__[0].cell_contents",
    ),
    "empty nonlocal": (
        "def make():\n    def step(x):\n        nonlocal n\n        n = x\n    if False:\n        n = 1\n    return step\n"
        "step = make()",
        "str(step.__closure__[0])",
    ),
    "class": ("class Log:\n    n = 0\ndef step(x):\n    Log.n += 1\n    Log.last = x", "vars(Log).get('last', Log.n)"),
    "type of self": (
        "class Log:\n    n = 0\n    def write(self):\n        type(self).n += 1\nLOG = Log()\ndef step(x):\n    LOG.write()",
        "Log.n",
    ),
    "instance": ("class Log:\n    n = 0\nLOG = Log()\ndef step(x):\n    LOG.n += 1", "vars(LOG).get('n')"),
    "function": ("def step(x):\n    step.n = x", "vars(step).get('n')"),
    "alias in a function": (
        "import sys\nN = 0\ndef step(x):\n    from this_text import more\n    more.n += 1",
        "more.n",
    ),
}


@pytest.mark.parametrize("case", BOUND)
def test_what_is_bound_anew_is_bound_as_before(case, monkeypatch):
    text, read = BOUND[case]
    space = run_of_text(text)
    if case == "alias in a function":
        package, more = ModuleType("this_text"), ModuleType("this_text.more")
        package.more, more.n, space["more"] = more, 0, more
        monkeypatch.setitem(sys.modules, "this_text", package)
    space["globals_of_text"] = space
    before = eval(read, space)
    assert verify(Steps(space["step"]), seconds=SECONDS).verdict in ("proven", "failed")
    assert eval(read, space) == before


@functools.lru_cache
def few(n):
    return torch.ones(1)


@functools.cache
def many(n):
    return torch.ones(1)


@pytest.mark.parametrize("function", [few, many])
def test_an_empty_cache_is_empty_after_verify(function):
    function.cache_clear()
    verify(Steps(lambda x: function(x.dim()) + function(type(x))), seconds=SECONDS)
    assert function.cache_info().currsize == 0


def test_entries_of_a_cache_are_kept_or_it_is_said_that_they_are_not():
    many.cache_clear()
    mine = many(1)
    assert not put_back_but_for(verify(Steps(lambda x: many(x.dim())), seconds=SECONDS))
    assert many(1) is mine
    assert many.cache_info().currsize == 1
    few.cache_clear()
    own = few(1)
    assert not put_back_but_for(verify(Steps(lambda x: few(x.dim()) + few(type(x))), seconds=SECONDS))
    assert few.cache_info().currsize == 1
    assert few(1) is own
    for at in range(2000):  # until all that is left of others has been dropped
        few(at)
    assert few.cache_info().currsize == few.cache_info().maxsize
    few.cache_clear()
    few(1)
    text = "few (an lru_cache, which has lost results)"
    assert put_back_but_for(verify(Steps(lambda x: list(map(few, range(129)))), seconds=SECONDS)) == [text]


NUMBERS = itertools.count()


def test_what_cannot_be_put_back_is_named(tmp_path):
    with open(tmp_path / "log.txt", "w") as log, open(tmp_path / "untouched.txt", "w") as untouched:
        proof = verify(Steps(lambda x: (log.write("a"), untouched.name, next(NUMBERS))), seconds=SECONDS)
    assert put_back_but_for(proof) == ["NUMBERS (an itertools.count), log (a file)"]
    assert not put_back_but_for(verify(Steps(lambda x: NUMBERS), seconds=SECONDS))


def test_a_generator_of_random_numbers_that_is_an_attribute_is_copied():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.generators = {"own": torch.Generator().manual_seed(1)}
            self.register_buffer("bytes", torch.zeros(5, dtype=torch.uint8))

        @contract
        def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
            return x + torch.rand(4, generator=self.generators["own"]) + self.bytes[:1]

    module = Noise()
    before = described(module.generators["own"])
    assert verify(module, seconds=SECONDS).verdict == "proven"
    assert described(module.generators["own"]) == before


def test_it_is_put_back_when_verify_raises_or_has_no_time():
    kept = []
    model = hooked(lambda m, i, o: kept.append(o))
    verify(model, seconds=0.01)
    assert kept == []
    with pytest.raises(KeyboardInterrupt):
        verify(hooked(lambda m, i, o: [kept.append(o), raise_(KeyboardInterrupt)]), seconds=SECONDS)
    assert kept == []


def raise_(error):
    raise error


def test_trace_leaves_nothing_outside():
    kept = []
    trace(hooked(lambda m, i, o: kept.append(o)), torch.zeros(2, 4))
    assert kept == []


def test_hooks_of_all_modules_and_functions_for_values_leave_nothing():
    kept, drawn = [], []
    handle = nn.modules.module.register_module_forward_hook(lambda m, i, o: kept.append(o))
    try:
        values = {"x": lambda shape: (drawn.append(shape), torch.ones(shape))[1]}
        verify(hooked(lambda m, i, o: None), values=values, seconds=SECONDS)
    finally:
        handle.remove()
    assert kept == drawn == []


def test_what_another_thread_binds_stays_if_the_code_only_reads_it():
    space, done = run_of_text("LIMIT = 1\nN = 0\ndef step(x):\n    global N\n    N += LIMIT"), threading.Event()

    def other():
        while not done.is_set():
            space["LIMIT"] += 1

    thread = threading.Thread(target=other)
    thread.start()
    try:
        verify(Steps(space["step"]), seconds=SECONDS)
    finally:
        done.set()
        thread.join()
    assert space["N"] == 0
    assert space["LIMIT"] > 1
