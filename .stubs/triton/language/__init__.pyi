# Not typed: the files of kernels are left out of checking.

from typing import Any

constexpr = Any

def __getattr__(name: str) -> Any: ...
