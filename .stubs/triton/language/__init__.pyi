# Not typed: the files of kernels are left out of checking.

from typing import Any

class constexpr:
    def __init__(self, value: object) -> None: ...

def __getattr__(name: str) -> Any: ...
