#!/usr/bin/python3 -IS
"""Dies by SIGKILL after a word on standard error."""

import os
import signal

os.write(2, b"about to die\n")
os.kill(os.getpid(), signal.SIGKILL)
