#!/usr/bin/python3 -IS
"""Writes 100 MB to standard error, then one line to say so."""

import os

BLOCK = b"perf: something is wrong, something is wrong, something is wrong\n" * 1000

written = 0
while written < 100_000_000:
    written += os.write(2, BLOCK)
os.write(2, b"\nthe end\n")
