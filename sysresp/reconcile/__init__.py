"""Observe, plan, apply: what is wanted against what is there, and the shortest safe way between."""
