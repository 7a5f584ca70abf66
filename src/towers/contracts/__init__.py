"""Shape contracts: jaxtyping annotations that are enforced at every call. Imports nothing else of towers."""

from towers.contracts.check import contract
from towers.contracts.errors import ShapeContractError
from towers.contracts.modes import checks

__all__ = ["ShapeContractError", "checks", "contract"]
