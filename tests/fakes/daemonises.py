#!/usr/bin/python3 -IS
"""Double-forks into a session of its own, deaf to SIGTERM, with all pipes open; the first process ends at once."""

import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    daemon_pid = os.fork()
    if daemon_pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        time.sleep(600)
    print(f"daemon {daemon_pid}", flush=True)
    os._exit(0)
os.wait()
