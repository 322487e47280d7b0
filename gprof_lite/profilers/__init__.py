"""Adapters of external profilers: one module (or a few of one prefix) per tool, listed in ``catalog``."""
