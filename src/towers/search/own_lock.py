"""A lock of one object, of which each copy of the object has its own."""

import threading
from types import TracebackType


class OwnLock:
    """As `threading.RLock`, for objects that are copied or pickled: the copy begins with a free lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["OwnLock"], tuple[()]]:
        return OwnLock, ()
