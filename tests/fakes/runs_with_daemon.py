#!/usr/bin/python3 -IS
"""Like ``daemonises.py``, but the first process goes on working."""

import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(f"daemon {os.getpid()}", flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
