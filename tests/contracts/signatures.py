"""Random signatures in the language of annotations that jaxtyping knows too, and random calls of them."""

from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from random import Random
from typing import Annotated, Any, Literal

import jaxtyping
import torch
from beartype import BeartypeConf, BeartypeViolationVerbosity, beartype
from beartype.vale import Is
from jaxtyping import AbstractDtype, AnnotationError, jaxtyped
from torch import Tensor, nn

from towers.contracts.annotations import read_annotation
from towers.contracts.specs import holds_tensors

KINDS = (
    "Float",
    "Float",
    "Float",
    "Int",
    "Int",
    "Bool",
    "Shaped",
    "Float32",
    "Float64",
    "BFloat16",
    "Int32",
    "Integer",
)
KINDS += ("Num", "Inexact", "Complex", "Real", "UInt8", "UInt", "Int64")
DTYPES = {
    "Float": (torch.float32, torch.float32, torch.float16, torch.float64), "Int": (torch.int64, torch.int32),
    "Bool": (torch.bool,), "Shaped": (torch.float32, torch.bool, torch.int8), "Float32": (torch.float32,),
    "Float64": (torch.float64,), "BFloat16": (torch.bfloat16,), "Int32": (torch.int32,), "Int64": (torch.int64,),
    "Integer": (torch.int64, torch.uint8), "Num": (torch.float32, torch.complex64, torch.int8), "UInt": (torch.uint8,),
    "Inexact": (torch.float32, torch.complex128), "Complex": (torch.complex64,), "Real": (torch.int16, torch.float32),
    "UInt8": (torch.uint8,),
}  # fmt: skip
EVERY_KIND = tuple(
    kind
    for kind in vars(jaxtyping).values()
    if isinstance(kind, type) and issubclass(kind, AbstractDtype) and kind is not AbstractDtype
)
EVERY_DTYPE = tuple(
    {
        value
        for value in vars(torch).values()
        if isinstance(value, torch.dtype)
        and not str(value).startswith(("torch.q", "torch.bits", "torch.complex32", "torch.bcomplex32"))
    }
)
USUAL_DTYPES = (torch.float32, torch.int64, torch.bool, torch.float16, torch.uint8, torch.complex64, torch.bfloat16)
NAMES = ("n", "m", "k", "in")
EXPRESSIONS = (
    "n-1",
    "n+1",
    "2*n",
    "n+m",
    "n*m",
    "n//2",
    "m%2",
    "2*n-m",
    "(n+1)*2",
    "-n+4",
    "n-m+2",
    "7//n",
    "{k}",
    "{k}+1",
)
EXPRESSIONS += ("n*{k}", "n//{k}", "{self.w}", "{self.w}*2", "{self.w}-{k}+n")
PLAIN = ((int, 3), (str, "x"), (bool, True), (Literal["a", "b"], "b"), (int | str, 2), (float | None, None))
WRONG_KINDS = (None, 3, "text", [], (), {}, 1.5)


@dataclass
class Sizes:
    """What the names stand for when a call is made up."""

    axes: dict[str, int]
    several: dict[str, tuple[int, ...]]
    w: int
    k: int

    @classmethod
    def drawn(cls, rng: Random) -> "Sizes":
        axes = {name: rng.choice((0, 1, 1, 2, 2, 3, 3, 4)) for name in NAMES}
        several = {
            name: tuple(rng.choice((1, 2, 2, 3)) for _ in range(rng.choice((0, 1, 1, 2)))) for name in ("xs", "n")
        }
        return cls(axes, several, w=rng.randint(1, 3), k=rng.randint(1, 3))

    def of(self, expression: str) -> int:
        names = {name: size for name, size in self.axes.items() if name != "in"}
        spelt = expression.replace("{self.w}", str(self.w)).replace("{k}", str(self.k))
        try:
            return max(0, eval(spelt, {}, names))
        except ZeroDivisionError:
            return 0


Make = Callable[[Random, Sizes], Any]


@dataclass
class Piece:
    """An annotation, the same one for the oracle, and how to make values that fit it more often than not.

    beartype looks at one item of a container, taken at random. Its annotation is therefore written out as a tuple with
    one entry for each item, which it checks whole.
    """

    hint: Any
    theirs: Any
    make: Make
    uses: str = ""
    """The text of its axes, to see which of the names in braces it needs."""


@cache
def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


# Annotations.


def axis(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.55:
        return rng.choice(NAMES[:3] if draw < 0.5 else NAMES)
    if draw < 0.65:
        return str(rng.choice((0, 1, 2, 3)))
    if draw < 0.72:
        return rng.choice(("_", "_", "_n", "_free"))
    if draw < 0.82:
        return "#" + rng.choice((*NAMES[:3], "n+1", "2", "{k}"))
    if draw < 0.84:
        return rng.choice(("rows=3", "rows=n", "#n=2"))
    return rng.choice(EXPRESSIONS)


def variadic(rng: Random) -> str:
    return rng.choice(("...", "...", "*xs", "*xs", "*xs", "*#xs", "*#xs", "#*xs", "*n", "*_", "*_xs"))


def shape_of(axes: list[str], rng: Random, sizes: Sizes) -> list[int]:
    shape: list[int] = []
    for text in axes:
        plain = text.lstrip("#*_").rpartition("=")[2]
        if text == "..." or "*" in text:
            several = (
                sizes.several.get(plain, (2,)) if "_" not in text and plain in sizes.several else (rng.randint(0, 3),)
            )
            if "#" in text and rng.random() < 0.5:
                several = tuple(1 if rng.random() < 0.4 else size for size in several[rng.randint(0, len(several)) :])
            shape += several
        elif "_" in text:
            shape.append(rng.randint(0, 3))
        elif "#" in text and rng.random() < 0.4:
            shape.append(1)
        else:
            shape.append(sizes.axes["in"] if plain == "in" else sizes.of(plain))
    return shape


def spoilt(shape: list[int], rng: Random) -> list[int]:
    """One axis of another size, one too many, one too few, or two that changed places."""
    draw = rng.random()
    if shape and draw < 0.6:
        at = rng.randrange(len(shape))
        return [*shape[:at], max(0, shape[at] + rng.choice((-1, 1, 2))), *shape[at + 1 :]]
    if len(shape) > 1 and draw < 0.75:
        return shape[::-1]
    if shape and draw < 0.88:
        return shape[1:] if draw < 0.81 else shape[:-1]
    return [*shape, 1]


def tensor(rng: Random, trouble: float, *, kind: str | None = None, rank: int | None = None) -> Piece:
    kind = kind or rng.choice(KINDS)
    axes = [axis(rng) for _ in range(rng.choice((0, 1, 1, 2, 2, 2, 3)) if rank is None else rank)]
    if rank is None and rng.random() < 0.3:
        axes.insert(rng.randint(0, len(axes)), variadic(rng))
    array = rng.choice((Tensor,) * 12 + (nn.Parameter, Tensor | nn.Parameter))
    hint = getattr(jaxtyping, kind)[array, " ".join(axes)]

    def make(rng: Random, sizes: Sizes) -> Any:
        shape, dtype = shape_of(axes, rng, sizes), rng.choice(DTYPES[kind])
        if rng.random() < trouble:
            if rng.random() < 0.75:
                shape = spoilt(shape, rng)
            elif rng.random() < 0.7:
                dtype = rng.choice(USUAL_DTYPES if rng.random() < 0.7 else EVERY_DTYPE)
            else:
                return rng.choice(WRONG_KINDS)
        value = empty(tuple(shape), dtype)
        parameter = array is nn.Parameter and dtype.is_floating_point and rng.random() < 0.9
        return nn.Parameter(value) if parameter else value

    return Piece(hint, hint, make, uses=" ".join(axes))


def either(rng: Random, trouble: float) -> Piece:
    """A union whose alternatives no tensor fits both: which one binds its names is left to chance by beartype."""
    kinds = rng.sample(("Float", "Int", "Bool", "Complex"), k=2)
    ranks = rng.sample(range(4), k=2)
    if rng.random() < 0.5:
        parts = [tensor(rng, trouble, kind=kind, rank=rng.randint(0, 3)) for kind in kinds]
    else:
        parts = [tensor(rng, trouble, kind=kinds[0], rank=rank) for rank in ranks]
    hint = parts[0].hint | parts[1].hint if rng.random() < 0.5 else parts[0].hint | parts[1].hint | int
    return Piece(
        hint, hint, lambda rng, sizes: rng.choice(parts).make(rng, sizes), uses=" ".join(part.uses for part in parts)
    )


def optional(rng: Random, trouble: float) -> Piece:
    inner = annotation(rng, trouble, depth=1)

    def make(rng: Random, sizes: Sizes) -> Any:
        return None if rng.random() < 0.3 else inner.make(rng, sizes)

    return Piece(inner.hint | None, inner.theirs | None, make, inner.uses)


def several(rng: Random, trouble: float, depth: int) -> Piece:
    """A tuple of this and that."""
    parts = [annotation(rng, trouble / 2, depth + 1) for _ in range(rng.choice((1, 2, 2, 3)))]

    def make(rng: Random, sizes: Sizes) -> Any:
        items = [part.make(rng, sizes) for part in parts]
        return tuple(items[1:] if rng.random() < trouble / 8 else items)

    hint, theirs = tuple[tuple(part.hint for part in parts)], tuple[tuple(part.theirs for part in parts)]  # type: ignore
    return Piece(hint, theirs, make, " ".join(part.uses for part in parts))


@dataclass(frozen=True)
class Whole:
    """A container in a call: the oracle gets its items as a tuple."""

    value: Any
    items: tuple[Any, ...]


def container(rng: Random, trouble: float, depth: int) -> Piece:
    """A list, a dict or a tuple of any length; of one length within one signature, see `Piece`."""
    inner = annotation(rng, trouble / 3, depth + 1)
    whole = "jaxtyping" in str(inner.hint)  # of what holds no tensor beartype, and so we, look at one item
    length, form = rng.choice((1, 2, 3)) if whole else 1, rng.choice(("list", "dict", "tuple"))
    hint: Any = {"list": list[inner.hint], "dict": dict[str, inner.hint], "tuple": tuple[inner.hint, ...]}[form]

    def make(rng: Random, sizes: Sizes) -> Any:
        items = [inner.make(rng, sizes) for _ in range(length)]
        theirs = tuple(theirs_of(item) for item in items)
        ours = [ours_of(item) for item in items]
        made = {"list": ours, "dict": dict(zip("abc", ours, strict=False)), "tuple": tuple(ours)}
        wrong = rng.random() < trouble / 8
        if wrong:
            return rng.choice(WRONG_KINDS[:3])
        return Whole(made[form], theirs)

    return Piece(hint, tuple[(inner.theirs,) * length], make, inner.uses)  # type: ignore


def ours_of(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(ours_of(item) for item in value)
    return value.value if isinstance(value, Whole) else value


def theirs_of(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(theirs_of(item) for item in value)
    return value.items if isinstance(value, Whole) else value


def record(rng: Random, trouble: float, depth: int) -> Piece:
    """A dataclass: the oracle, which does not look into one, gets its fields as a tuple."""
    parts = [annotation(rng, trouble / 2, depth + 1) for _ in range(rng.choice((1, 2, 2)))]
    parts = [tensor(rng, trouble / 2, rank=1) if "self" in part.uses else part for part in parts]
    if any("self" in part.uses or "{k}" in part.uses for part in parts):  # a field's `self` is the record
        return tensor(rng, trouble, kind="Float", rank=0)
    if not any(holds_tensors(read_annotation(part.hint, None)) for part in parts):  # is checked by its type alone
        parts.append(tensor(rng, trouble / 2))
        if "self" in parts[-1].uses or "{k}" in parts[-1].uses:
            return tensor(rng, trouble, kind="Float", rank=0)
    kind = make_dataclass("Drawn", [(f"field_{at}", part.hint) for at, part in enumerate(parts)])

    def make(rng: Random, sizes: Sizes) -> Any:
        items = [part.make(rng, sizes) for part in parts]
        if rng.random() < trouble / 8:
            return rng.choice(WRONG_KINDS[:3])
        return Whole(kind(*map(ours_of, items)), tuple(map(theirs_of, items)))

    theirs = tuple[tuple(part.theirs for part in parts)]  # type: ignore
    return Piece(kind, theirs, make, " ".join(part.uses for part in parts))


def low(value: Any) -> bool:
    return value.ndim < 2


def validated(rng: Random, trouble: float) -> Piece:
    """A tensor with a validator, or with a text beside it; on the CPU, for validators look at no meta tensors."""
    inner = tensor(rng, trouble)
    hint = Annotated[inner.hint, Is[low] if rng.random() < 0.6 else "a text"]  # type: ignore

    def make(rng: Random, sizes: Sizes) -> Any:
        value = inner.make(rng, sizes)
        if type(value) not in (Tensor, nn.Parameter):
            return value
        real = torch.empty(value.shape, dtype=value.dtype)
        return nn.Parameter(real, requires_grad=False) if isinstance(value, nn.Parameter) else real

    return Piece(hint, hint, make, inner.uses)


def plain(rng: Random) -> Piece:
    hint, value = rng.choice(PLAIN)
    return Piece(hint, hint, lambda rng, sizes: rng.choice((0, "a", 1.5, None)) if rng.random() < 0.1 else value)


def annotation(rng: Random, trouble: float, depth: int = 0) -> Piece:
    draw = rng.random()
    if draw < 0.66 or depth > 1:
        return tensor(rng, trouble)
    if draw < 0.76 and depth == 0:
        return optional(rng, trouble)
    if draw < 0.81:
        return either(rng, trouble)
    if draw < 0.83 and depth == 0:
        return validated(rng, trouble)
    if draw < 0.9:
        return several(rng, trouble, depth)
    if draw < 0.945:
        return container(rng, trouble, depth)
    if draw < 0.96 and depth == 0:
        return record(rng, trouble, depth)
    return plain(rng)


# Signatures and calls.


@dataclass
class Instance:
    w: int


@dataclass
class Signature:
    """A function in two versions, ours and theirs, and the pieces that its calls are made of."""

    text: str
    pieces: dict[str, Piece]
    optional: frozenset[str]
    function: Callable[..., Any]
    """Without a check; of our annotations. It returns what stands in `result`."""
    theirs: Callable[..., Any]
    result: list[Any] = field(default_factory=lambda: [None])
    shown: str = ""
    scoped: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    """Makes and decorates the function in a scope where alone its annotations, which are texts, have a meaning."""


def signature(rng: Random) -> Signature:
    count = rng.choice((1, 1, 2, 2, 3))
    trouble = 0.7 / count
    pieces = {name: annotation(rng, trouble) for name in "abc"[:count]}
    if rng.random() < 0.1:
        pieces["args"] = tensor(rng, trouble / 2)
    if rng.random() < 0.06:
        pieces["kwargs"] = tensor(rng, trouble / 2)
    returns = annotation(rng, trouble) if rng.random() < 0.35 else None
    uses = " ".join(piece.uses for piece in [*pieces.values(), *([returns] if returns else [])])
    if "{k}" in uses:
        pieces["k"] = Piece(int, int, lambda rng, sizes: sizes.k)
    by_default = frozenset(
        name for name in "abc" if name in pieces and rng.random() < (0.7 if _takes_none(pieces[name]) else 0.05)
    )
    if returns is not None:
        pieces["return"] = returns
    in_text = rng.random() < 0.15
    text = _source(pieces, by_default, method="{self.w}" in uses, quoted=in_text, keyword=rng.random() < 0.3)
    result: list[Any] = [None]
    function, theirs = (_defined(text, {f"_{name}": getattr(piece, which) for name, piece in pieces.items()}, result) for which in ("hint", "theirs"))  # fmt: skip
    form = rng.choice(("function",) * 7 + ("postponed", "scoped", "class"))
    scoped = None
    if form == "class" and not {"args", "kwargs", "return", "self"} & {*pieces, *uses.replace("{", ".").split(".")}:
        function, theirs = (_class(pieces, by_default, which) for which in ("hint", "theirs"))
        text = f"a dataclass in place of {text}"
    elif form == "scoped":
        text = _source(pieces, by_default, method="{self.w}" in uses, quoted=True, keyword=False)
        scoped = _in_a_scope(text, {f"_{name}": piece.hint for name, piece in pieces.items()}, result)
        theirs = _defined(text, {f"_{name}": piece.theirs for name, piece in pieces.items()}, result)
    elif form == "postponed":
        text = f"from __future__ import annotations\n{text}"
        function = _defined(text, {f"_{name}": piece.hint for name, piece in pieces.items()}, result)
    shown = text + "".join(f"\n  {name}: {_named(piece.hint)}" for name, piece in pieces.items())
    return Signature(text, pieces, by_default, function, theirs, result, shown, scoped)


def _class(pieces: dict[str, Piece], by_default: frozenset[str], which: str) -> Any:
    """A dataclass whose fields are the arguments."""
    ordered = sorted(pieces, key=lambda name: name in by_default)
    fields = [(name, getattr(pieces[name], which), *([field(default=None)] * (name in by_default))) for name in ordered]
    return make_dataclass("Made", fields)


def _in_a_scope(text: str, annotations: dict[str, Any], result: list[Any]) -> Any:
    body = "\n".join(f"    {line}" for line in ["@decorate", text, "return function"])
    space: dict[str, Any] = {"__name__": "random_signatures"}
    exec(f"def scope({', '.join(['decorate', 'result', *annotations])}):\n{body}", space)
    return lambda decorate: space["scope"](decorate, result, **annotations)


def _takes_none(piece: Piece) -> bool:
    return type(None) in getattr(piece.hint, "__args__", ())


def _named(hint: Any) -> str:
    return str(hint).replace("jaxtyping.", "").replace("torch.", "")


def _source(pieces: dict[str, Piece], by_default: frozenset[str], *, method: bool, quoted: bool, keyword: bool) -> str:
    mark = '"' if quoted else ""
    parts = ["self"] if method else []
    plain = [name for name in pieces if name not in ("args", "kwargs", "return")]
    ordered = [name for name in plain if name not in by_default] + [name for name in plain if name in by_default]
    if "args" in pieces:
        ordered = [name for name in plain if name not in by_default]
        parts += [f"{name}: {mark}_{name}{mark}" for name in ordered] + [f"*args: {mark}_args{mark}"]
        ordered = [name for name in plain if name in by_default]
    elif keyword and len(ordered) > 1:
        parts += [f"{ordered[0]}: {mark}_{ordered[0]}{mark}" + " = None" * (ordered[0] in by_default), "*"]
        ordered = ordered[1:]
    parts += [f"{name}: {mark}_{name}{mark}" + " = None" * (name in by_default) for name in ordered]
    parts += [f"**kwargs: {mark}_kwargs{mark}"] if "kwargs" in pieces else []
    arrow = f" -> {mark}_return{mark}" if "return" in pieces else ""
    return f"def function({', '.join(parts)}){arrow}: return result[0]"


def _defined(text: str, annotations: dict[str, Any], result: list[Any]) -> Callable[..., Any]:
    space = {**annotations, "result": result, "__name__": "random_signatures"}
    exec(text, space)
    return space["function"]


@dataclass
class Call:
    """Arguments and the result, each for us and for the oracle."""

    ours: tuple[tuple[Any, ...], dict[str, Any], Any]
    theirs: tuple[tuple[Any, ...], dict[str, Any], Any]


def call(rng: Random, signature: Signature) -> Call:
    sizes = Sizes.drawn(rng)
    made = {name: piece.make(rng, sizes) for name, piece in signature.pieces.items() if name not in ("args", "kwargs")}
    result = made.pop("return", None)
    for name in signature.optional:
        if rng.random() < 0.3:
            del made[name]
    args: list[Any] = [Instance(sizes.w)] if "self" in signature.text else []
    if "args" in signature.pieces:
        before = signature.text.partition("*args")[0]
        args += [made.pop(name) for name in list(made) if f"{name}:" in before]
        args += [signature.pieces["args"].make(rng, sizes) for _ in range(rng.randint(0, 3))]
    if "kwargs" in signature.pieces:
        made |= {name: signature.pieces["kwargs"].make(rng, sizes) for name in ("x", "y")[: rng.randint(0, 2)]}

    def version(side: Callable[[Any], Any]) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        return tuple(side(value) for value in args), {name: side(value) for name, value in made.items()}, side(result)

    return Call(version(ours_of), version(theirs_of))


class Refused(AnnotationError):
    """The oracle refuses. Of this class, because jaxtyping then passes it on without writing its message."""


def quick_beartype(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype, for verdicts alone: to write the messages of both packages takes nearly all of a refusal's time."""
    checked = beartype(conf=BeartypeConf(violation_verbosity=BeartypeViolationVerbosity.MINIMAL))(function)
    for name in checked.__kwdefaults__ or ():
        if name == "__beartype_get_violation":  # the function that writes them; an older beartype has another name
            checked.__kwdefaults__[name] = lambda **_: Refused()

    def check(*args: Any, **kwargs: Any) -> Any:
        try:
            return checked(*args, **kwargs)
        except AnnotationError:
            raise
        except Exception:  # jaxtyping makes a TypeCheckError of each
            raise Refused from None

    return check


def oracle(function: Callable[..., Any]) -> Callable[..., Any]:
    return jaxtyped(typechecker=quick_beartype)(function)
