"""`spoken.py` as it stands, moved over to `towers.contracts`, and with no checks at all."""

import linecache
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

SOURCE = (Path(__file__).parent / "spoken.py").read_text("utf8")
_DECORATOR = "@jaxtyped(typechecker=beartype)\n"
_IMPORTS = "from beartype import beartype\nfrom jaxtyping import Bool, Float, Int, jaxtyped\n"

MOVED = SOURCE.replace(_DECORATOR, "@contract\n").replace(
    _IMPORTS, "from jaxtyping import Bool, Float, Int\nfrom towers.contracts import contract\n"
)
UNCHECKED = re.sub(r"^ *@jaxtyped.*\n", "", SOURCE, flags=re.MULTILINE)
ANNOTATED = SOURCE.count(_DECORATOR)


@cache
def module(version: str) -> ModuleType:
    """The module in one version: "jaxtyping", "contract" or "unchecked"."""
    source = {"jaxtyping": SOURCE, "contract": MOVED, "unchecked": UNCHECKED}[version]
    made = ModuleType(f"spoken_{version}")
    name = f"<spoken, {version}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    sys.modules[made.__name__] = made  # for pickle
    exec(compile(source, name, "exec"), made.__dict__)
    return made
