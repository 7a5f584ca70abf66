# torch/utils/_sympy/numbers.py makes its infinity by a metaclass of sympy.

from typing import Any

int_oo: Any
