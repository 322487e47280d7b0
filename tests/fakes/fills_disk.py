#!/usr/bin/python3 -IS
"""Fills the disk that its output file is on (``-o FILE``, or the last argument), then waits to be stopped."""

import os
import sys
import time

arguments = sys.argv[1:]
path = arguments[arguments.index("-o") + 1] if "-o" in arguments else arguments[-1]
try:
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65536)
except OSError as exc:
    sys.stderr.write(f"{path}: {os.strerror(exc.errno)}\n")
    sys.stderr.flush()
time.sleep(600)
