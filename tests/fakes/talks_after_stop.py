#!/usr/bin/python3 -IS
"""Answers SIGTERM with 1 MB of output, and then exits with 0."""

import os
import signal
import time


def on_stop(number: int, frame: object) -> None:
    for _ in range(16):
        os.write(1, b"x" * 65535 + b"\n")
    os.write(2, b"that was all\n")
    os._exit(0)


signal.signal(signal.SIGTERM, on_stop)
print("ready", flush=True)
time.sleep(600)
