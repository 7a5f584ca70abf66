"""The packages that training needs and `import towers` does not."""

from importlib.util import find_spec

PACKAGES = ("lightning", "torchmetrics", "safetensors", "matplotlib")
_EXTRAS = {"tensorboard": "train,tensorboard"}


def require(*packages: str) -> None:
    """Look for packages without importing them; absent ones end here, not after the work.

    Raises:
        ImportError: one is not installed; the text is the line that installs it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ImportError(f'{package} is not installed: pip install "towers[{_EXTRAS.get(package, "train")}]"')
