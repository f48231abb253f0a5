"""Observed and desired -> plan (pure) -> apply (through ports)."""
