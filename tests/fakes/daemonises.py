#!/usr/bin/python3 -IS
"""Double-forks into a session of its own, deaf to SIGTERM, with all pipes open; the first process ends at once."""

import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        print(f"daemon {os.getpid()}", flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
