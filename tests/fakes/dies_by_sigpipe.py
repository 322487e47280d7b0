#!/usr/bin/python3 -IS
"""Dies by SIGPIPE: it writes to a pipe that nobody reads."""

import os
import signal

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.write(2, b"about to die\n")
read_end, write_end = os.pipe()
os.close(read_end)
os.write(write_end, b"x")
