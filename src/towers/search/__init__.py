"""Exact search: the items that a TwoTowers scores highest, of any number, for each query."""

from towers.search.index import Index as Index

__all__ = ["Index"]
