"""Shape contracts: jaxtyping annotations that are enforced at every call. Imports nothing else of towers.

    from towers.contracts import contract

    class Block(nn.Module):
        @contract(where="time <= {self.longest}", dtype_of="linear.weight")
        def forward(self, x: Float[Tensor, "batch time {self.width}"]) -> Float[Tensor, "batch time {self.width}"]:

`contract` checks functions, methods and dataclasses; `attach` gives a module of someone else a contract; `install`
gives every function of a package one; `checks` sets how much is checked;
`ShapeContractError`, a TypeError, is what does not fit; `contract.source(f)` shows the check.

Switching from jaxtyping: put `@contract` where `@jaxtyped(typechecker=beartype)` stands, and leave the annotations.

    install_import_hook("my_package", ...)        install("my_package"); pytest --towers-install=my_package;
                                                  %load_ext towers.contracts, %towers_contracts my_package

    same                                          as in jaxtyping with beartype
    ----                                          -----------------------------
    batch, 3, _, ..., *name, #name, *#name, n=3   what they mean, and that each name is one size in a call
    words-1, 2*n, n//2, n/2, n%3, min(a,b)        arithmetic over names; max too
    {self.hidden}, {argument}, {argument.size},   read at each call
    {self.sizes[0]}, {x.shape[0]}, {len(x)}
    None in {argument}                            refused; here with a reason
    Float, Int32, Bool, Shaped, ...               every dtype class, classes of your own, and subclasses of Tensor
    X | None, unions, *args, **kwargs             and TypeVars, Any, numpy arrays, properties, bound methods
    a default of another type                     let through where the argument is left out, such as None
    isinstance(x, Float[...]), print_bindings()   in the body of a contracted function they see the axes of the call,
                                                  and what isinstance binds holds for the result; not in async
                                                  functions and generators. Such a function is never compiled
    Annotated[Float[...], Is[...]]                validators run wherever values can be read: not under compile,
                                                  export and vmap, not on meta
    int, Literal, list[int], Callable, ...        what is no tensor is beartype's; under torch.compile, where beartype
                                                  cannot run, containers of it are checked whole
    strings, from __future__ import annotations   what speaks of a name that stands for nothing (an import for types
                                                  only) is not checked
    an operator that returns NotImplemented       __eq__, __add__, __radd__, ...: let through, whatever is annotated

    stricter                                      what jaxtyping lets through
    --------                                      ---------------------------
    list[X], tuple[X, ...], dict[K, X],           checked whole, not one item by chance; axes are shared. Iterable[X],
    Sequence[X], Mapping[K, X], Iterable[X],      Reversible and Container where the value is a collection: an
    tuple[X, *tuple[Y, ...]]                      iterator would be used up. What is unpacked is checked without
                                                  tensors too, and as `*args: *tuple[X, Y]`, which beartype refuses
    local names and later ones in a string        read where they stand for something; jaxtyping lets every value pass
    the rest of a string with an unknown name     checked: `tuple[X | Unknown]` has one item. jaxtyping lets all pass
    a string under a wrapper of another module    read in the module of the function; jaxtyping lets every value pass
    a default with tensors                        checked as an argument is, where it has the type of the annotation
    async functions                               the result is checked when awaited: jaxtyping refuses every one
    annotations that are no types:                refused with ValueError when decorating, as by beartype, which lets
    torch.float32, [X], (X, Y), "the input"       text through and takes a tuple for a union
    fields of dataclasses, NamedTuples,           checked, and their axes shared, when they pass a contract;
    and TypedDicts                                a key too many is let through, as a type checker does
    a dataclass under @contract                   InitVars and the arguments of an own __init__ before, every field
                                                  after it is made (__post_init__ may convert it), of types without
                                                  tensors too; `{n}` is a field
    n-1 before n, and 2*n alone                   hold in any order; a linear expression of one name binds it
    a name nearly like another                    is a warning; with `vocabulary=` an unknown name is an error
    where="steps % chunk == 0"                    bounds and divisibility, which jaxtyping does not have
    under torch.compile, export, vmap             the same checks, where jaxtyping refuses what fits, or vanishes. What
                                                  does not fit is a ShapeContractError; with fullgraph=True, and in a
                                                  strict export, it arrives as torch's Unsupported, with its text
    PyTree[X] of towers.contracts                 lists, tuples, dicts, dataclasses and nodes of torch's pytree, nested
                                                  in any way; None is a leaf. jaxtyping's own PyTree is read the same

    not supported                                 instead
    -------------                                 -------
    "*" without a name                            "..." or "*name"
    dtypes that torch does not have               jax's keys, dtypes of classes of your own: every call is refused
    a tensor or a text as {argument}              refused: a tensor's value may be on another device
    {self.nothing}                                AttributeError at the call; jaxtyping refuses with a TypeCheckError
    @beartype on an inner function                @contract: another checker does not see the axes of the outer call
    isinstance(x, Float[...]) in a helper         a helper without a contract sees axes only where its caller asks for
                                                  them too, by isinstance or print_bindings; so does what `install`
                                                  leaves alone. Else every size fits: give the helper a contract
    @jaxtyped above @beartype                     @contract in the place of both
    a class that is no dataclass, decorated       refused with TypeError: decorate its methods. jaxtyping checks nothing
    a partial, or an object with __call__         refused when decorating, as in jaxtyping: decorate the function
    @contract above @cached_property, a lambda    as below it; jaxtyping refuses them when decorating
    axes of an alternative that did not fit       free: in jaxtyping some stay bound, and a call that fits is refused
    Never as an argument                          every call is refused; beartype refuses when decorating
    Self, a Protocol without runtime_checkable    any value fits; beartype refuses them when decorating
    {self.n}{self.n}, {n}0, d{n}                  refused with ValueError when decorating: jaxtyping joins the texts
    an __init__ with a contract in a dataclass    checked by both
      with one
    equinox's field(converter=…)                  checked before it is converted: the field's type is what is given
    jaxtyping.TypeCheckError                      ShapeContractError, a TypeError too, with another text
    ?name, PyTree[X, "T"]                         PyTree[X]
    {self.a+1}, {self.f()}, n**2, other code      {self.a}+1; text is parsed, never run
    jaxtyped("context")                           a function with a contract
    @no_type_check above @contract                below it, or checks("off", package)
    torch.fx.symbolic_trace                       its proxies have no sizes and pass unchecked
    torch.jit.trace                               the sizes of the example are checked, with torch's TracerWarning
    Iterator, Generator and Callable of tensors   what they give is not looked at
    a generator's arguments, at the call          before its first item: a contracted generator is a generator
    'Float[Tensor, "*a *b"]' as text              refused with ValueError when decorating: jaxtyping never reads it
    install(…) where no shape is named            a function with `Tensor`, int and str alone is left unchecked
    assigning a field of a dataclass later        checked when it passes a contract
    what a record holds of its own class          checked by its type only, not by its fields
    torch.jit.script                              cannot read jaxtyping; what it has made stays as it is
"""

from typing import TYPE_CHECKING, Any

from jaxtyping import print_bindings

from towers.contracts.decorate import contract
from towers.contracts.errors import ShapeContractError
from towers.contracts.hooks import attach
from towers.contracts.import_hook import install, register_magic
from towers.contracts.modes import checks
from towers.contracts.trees import PyTree

if TYPE_CHECKING:
    from towers.contracts.proofs.proof import Proof, ShapeTrace
    from towers.contracts.proofs.verify import trace, verify

__all__ = [
    "Proof",
    "PyTree",
    "ShapeContractError",
    "ShapeTrace",
    "attach",
    "checks",
    "contract",
    "install",
    "print_bindings",
    "trace",
    "verify",
]

_PROOFS = {"Proof": "proof", "ShapeTrace": "proof", "trace": "verify", "verify": "verify"}


def __getattr__(name: str) -> object:
    """Load what proves only when it is asked for: torch's symbolic shapes take half a second to import."""
    if name in _PROOFS:
        from importlib import import_module

        return getattr(import_module(f"towers.contracts.proofs.{_PROOFS[name]}"), name)
    raise AttributeError(f"module 'towers.contracts' has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext towers.contracts` in IPython: then there is `%towers_contracts my_package`."""
    register_magic(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
