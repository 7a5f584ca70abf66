"""Tests from annotations: hypothesis strategies for a contract's arguments, and an assertion that it is kept.

    from towers.contracts.testing import assert_contract, broken_inputs, valid_inputs

    assert_contract(MyModule(width=8))

Needs hypothesis: `pip install "towers[test]"`. For pytest see `towers.pytest_contracts`.
"""

try:
    import hypothesis as hypothesis
except ImportError:
    raise ImportError('towers.contracts.testing needs hypothesis: pip install "towers[test]"') from None

from towers.contracts.testing.asserting import assert_contract
from towers.contracts.testing.breaking import Broken, broken_inputs
from towers.contracts.testing.drawn_inputs import Inputs, valid_inputs

__all__ = ["Broken", "Inputs", "assert_contract", "broken_inputs", "valid_inputs"]
