from typing import Any

from sympy.core.basic import Basic

class Relational(Basic):
    lhs: Any
    rhs: Any

class Eq(Relational):
    def __init__(self, lhs: Any, rhs: Any) -> None: ...

class Ge(Relational):
    def __init__(self, lhs: Any, rhs: Any) -> None: ...
