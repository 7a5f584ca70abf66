"""A module without its data: the same tree, hooks and attributes, in which every tensor is fake and lies on meta."""

import copy
import gc
import inspect
import weakref
from collections.abc import Callable
from types import FunctionType, MethodType, ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from towers.contracts import modes
from towers.contracts.decorate import contract
from towers.contracts.proofs.layer_rules import expected_hidden_size
from towers.contracts.proofs.reached import kind_of
from towers.contracts.proofs.rebinding import Rebinding, copied
from towers.contracts.proofs.seen_code import Seen
from towers.contracts.signature import Options, Signature, read_signature
from towers.contracts.specs import holds_tensors
from towers.contracts.subjects import contract_of


class _Emptied(TorchFunctionMode):
    """While it is on, deepcopy copies each tensor as a fake one, wherever in the tree it is an attribute."""

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake = fake

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = faked(tensor, self.fake)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def faked(tensor: Tensor, fake: FakeTensorMode) -> Tensor:
    """A tensor of the same shape and dtype without data."""
    if type(tensor) is not Tensor and isinstance(tensor, nn.Parameter):
        inner = fake.from_tensor(tensor.detach().to("meta"), static_shapes=True)
        return nn.Parameter(inner, requires_grad=tensor.requires_grad)
    return fake.from_tensor(tensor.detach().to("meta"), static_shapes=True)


class Emptied:
    """Makes copies of one module; they share their fake parameters."""

    def __init__(self, module: nn.Module, fake: FakeTensorMode) -> None:
        _refuse_parts(module)
        self.module, self.fake, self.seen = module, fake, Seen()
        tensors = [*module.parameters(), *module.buffers()]
        self.memo: dict[int, Any] = {id(tensor): faked(tensor, fake) for tensor in tensors}
        self.generators: list[torch.Generator] = []
        """Generators of random numbers: where there are any, their state is a tensor that must not be a fake one."""
        self.rebinding: Rebinding | None = None
        """What leads back to the module though deepcopy leaves it shared: known after the first copy."""

    def copy(self, memo: dict[int, Any] | None = None) -> nn.Module:
        """A copy that has not run yet. `memo`: gets what was copied, by the id of what it is a copy of.

        Raises:
            ValueError: something in the module cannot be copied.
        """
        memo = {} if memo is None else memo
        try:
            with _Emptied(self.fake):
                memo |= self.memo | {id(each): each.clone_state() for each in self.generators}
                twin = _deep_copy(self.module, memo)
        except Exception as error:
            if not self.generators and (
                found := [each for each in _held_by(self.module) if kind_of(each) is torch.Generator]
            ):
                self.generators = found
                memo.clear()
                return self.copy(memo)
            kind = type(self.module).__name__
            raise ValueError(f"{kind}: verify runs a copy, and this module cannot be copied: {error}") from error
        self.rebinding = self.rebinding or Rebinding(memo)
        _keep_hooks(self.module, twin, self.rebinding.apply(memo))
        for part in twin.modules():
            _read_bare_annotations(part)
        self.seen.see(twin)
        for part in twin.modules():
            _run_eagerly(part)
            _show_attached(part)
            if isinstance(part, nn.RNNBase):
                part.get_expected_hidden_size = MethodType(expected_hidden_size, part)
        return twin

    def without_data(self, records: dict[str, Any]) -> dict[str, Any]:
        """Copies of records that the user gave, in which tensors are fake ones on meta, as the parameters are."""
        with _Emptied(self.fake):
            return {name: _copied_record(value) for name, value in records.items()}


def _copied_record(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # it is used as it is
        return value


def _refuse_parts(module: nn.Module) -> None:
    """Refuse parts that cannot run without data, by name.

    Raises:
        ValueError: a part is what torch.jit has made, or has parameters that get their shape in the first call.
    """
    for path, part in named_parts(module).items():
        name = f"{type(module).__name__}: {path}" if path else type(module).__name__
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(f"{name} is what torch.jit has made, and needs data: verify what it was made of")
        tensors = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        if any(isinstance(each, (nn.UninitializedParameter, nn.UninitializedBuffer)) for each in tensors):
            raise ValueError(f"{name} ({type(part).__name__}) has tensors without a shape: call the module once before")


_UNCOPIED = (weakref.WeakMethod, *weakref.ProxyTypes)
"""What deepcopy refuses, or takes for what it stands for."""


def _deep_copy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deepcopy; weak methods and proxies in it are those of the original, for a Rebinding to replace."""
    before = dict(memo)
    try:
        twin = copy.deepcopy(module, memo)
        left = [each for each in copied(memo) if kind_of(each) in weakref.ProxyTypes]
        if not left:
            return twin
    except Exception:
        left = [each for each in _held_by(module) if kind_of(each) in _UNCOPIED]
        if not left:
            raise
    memo.clear()
    memo |= before | {id(each): each for each in left}
    return copy.deepcopy(module, memo)


def _held_by(module: nn.Module) -> list[Any]:
    """Everything in what a copy of a module copies."""
    seen, waiting = dict[int, Any](), [cast(Any, module)]
    while waiting:
        value = waiting.pop()
        if id(value) not in seen and not isinstance(value, (Tensor, type, FunctionType, ModuleType)):
            seen[id(value)] = value
            waiting += gc.get_referents(value)
    return list(seen.values())


_HOOKS = ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs")


def _keep_hooks(module: nn.Module, twin: nn.Module, counterpart: Callable[[Any], Any]) -> None:
    """Give the hooks of a module, those of `attach` included, to a copy that lost them.

    einops' layers copy themselves so: all that they keep is their pattern.
    """
    twins = named_parts(twin)
    for path, part in named_parts(module).items():
        same = twins.get(path)
        if same is not None and not any(getattr(same, name) for name in _HOOKS):
            for name in _HOOKS:
                getattr(same, name).update({key: counterpart(hook) for key, hook in getattr(part, name).items()})


def named_parts(module: nn.Module) -> dict[str, nn.Module]:
    """Every module of the tree by its path."""
    return dict(cast(Any, module).named_modules())


def _read_bare_annotations(module: nn.Module) -> None:
    """Make a contract of jaxtyping annotations on forward that have none, even if another library checks them."""
    if own_signature(module) is None and (function := annotated_forward(module)) is not None:
        module.forward = MethodType(contract(function), module)


def annotated_forward(module: nn.Module) -> Any:
    """The plain forward of a module, if its annotations speak of tensor shapes; else None."""
    function = inspect.unwrap(type(module).forward)
    if not getattr(function, "__annotations__", None) or type(module).__module__.startswith("torch."):
        return None
    try:
        signature = read_signature(function, Options())
    except (NameError, TypeError, ValueError):
        return None
    specs = [*signature.arguments.values(), *([signature.result] if signature.result else [])]
    return function if any(holds_tensors(spec) for spec in specs) else None


def own_signature(module: nn.Module) -> Signature | None:
    """The contract of a module's forward: one of `@contract` or of `attach`; None if there is neither."""
    found = contract_of(module.forward, module)
    return found if isinstance(found, Signature) else None


def _show_attached(module: nn.Module) -> None:
    """Replace the hooks of `attach` by a contracted forward, so that an interceptor sees the call."""
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        hooks: dict[int, Any] = getattr(module, kind)
        for key, hook in list(hooks.items()):
            signature = getattr(hook, "__contract__", None)
            if isinstance(signature, Signature):
                del hooks[key]
                if kind == "_forward_pre_hooks":
                    module.forward = _intercepted(module, signature)


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is what torch.compile has made of another one."""
    return type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch._dynamo")


def uncompiled(module: nn.Module) -> nn.Module:
    """What torch.compile made a module of; any other module itself."""
    return cast(Any, module)._orig_mod if is_compiled(module) else module


def _run_eagerly(module: nn.Module) -> None:
    """Let what torch.compile made call what it was made of: to compile it takes seconds, for each of many sizes."""
    if is_compiled(module):
        module.__dict__["forward"] = uncompiled(module).__call__


def _intercepted(module: nn.Module, signature: Signature) -> Any:
    inner = module.forward
    names = [name for name in signature.parameters if name != "self"]

    def forward(*args: Any, **kwargs: Any) -> Any:
        interceptor = modes.switch.interceptor
        assert interceptor is not None
        given = {"self": module, **dict(zip(names, args, strict=False)), **kwargs}
        return interceptor(signature, given, lambda: inner(*args, **kwargs))

    forward.__dict__["__contract__"] = signature
    return forward


class _Cloned(TorchFunctionMode):
    """While it is on, deepcopy copies tensors that are the result of a computation too; torch alone refuses those."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def real_copy(module: nn.Module) -> nn.Module:
    """A copy with its values, on the CPU."""
    memo: dict[int, Any] = {}
    with _Cloned():
        twin = _deep_copy(module, memo)
    _keep_hooks(module, twin, Rebinding(memo).apply(memo))
    for part in twin.modules():
        _read_bare_annotations(part)
        _run_eagerly(part)
    return twin.to("cpu")
