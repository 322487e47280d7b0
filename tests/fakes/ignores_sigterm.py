#!/usr/bin/python3 -IS
"""Ignores every polite request to end."""

import signal
import sys
import time

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
sys.stderr.write("I will not go\n")
sys.stderr.flush()
time.sleep(600)
