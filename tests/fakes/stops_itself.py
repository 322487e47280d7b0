#!/usr/bin/python3 -IS
"""Sends itself SIGSTOP, as often as it is continued."""

import os
import signal

os.write(2, b"stopping\n")
while True:
    os.kill(os.getpid(), signal.SIGSTOP)
