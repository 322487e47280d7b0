#!/usr/bin/python3 -IS
"""Writes bytes that are no text, the same ones each time, to both outputs."""

import os
import random

data = random.Random(1).randbytes(300_000)
for fd in (1, 2):
    rest = data
    while rest:
        rest = rest[os.write(fd, rest) :]
