"""Shape contracts: jaxtyping annotations that are enforced at every call. Imports nothing else of towers."""

from towers.contracts.decorate import contract
from towers.contracts.errors import ShapeContractError
from towers.contracts.hooks import attach
from towers.contracts.modes import checks

__all__ = ["ShapeContractError", "attach", "checks", "contract"]
