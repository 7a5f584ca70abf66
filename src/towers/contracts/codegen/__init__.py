"""Writes the source of a check: straight-line comparisons of sizes and dtypes, one function for each signature."""
