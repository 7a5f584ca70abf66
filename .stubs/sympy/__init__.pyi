# Of sympy what towers uses. An expression's class says little of what it can do, so that operators give a Basic back.

from typing import Any

from sympy.core.basic import Basic as Basic
from sympy.core.basic import Dummy as Dummy
from sympy.core.basic import Expr as Expr
from sympy.core.basic import Integer as Integer
from sympy.core.basic import Mul as Mul
from sympy.core.basic import Poly as Poly
from sympy.core.basic import Symbol as Symbol
from sympy.core.relational import Eq as Eq
from sympy.core.relational import Ge as Ge
from sympy.core.relational import Relational as Relational

class _Singletons:
    One: Integer
    Zero: Integer

S: _Singletons

def Not(arg: Any) -> Basic: ...
def cancel(f: Any) -> Expr: ...
def expand(e: Any) -> Expr: ...
def factor(f: Any) -> Expr: ...
def floor(arg: Any) -> Expr: ...
def sympify(a: Any) -> Any: ...
def __getattr__(name: str) -> Any: ...  # what torch uses more
