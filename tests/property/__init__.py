"""Hypothesis looks for a counterexample: ranges, hrefs, multistatus, lifecycle, the whole file system."""
