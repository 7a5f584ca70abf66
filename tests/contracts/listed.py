"""Modules of towers that need arguments, for `towers_contract_modules` in pyproject.toml."""

from towers import RaggedLSTM, Tower


def five_words() -> Tower:
    return Tower(5)


def lstm() -> RaggedLSTM:
    return RaggedLSTM(8, 6)
