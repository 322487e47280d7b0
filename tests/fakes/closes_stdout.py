#!/usr/bin/python3 -IS
"""Closes standard output early and runs on."""

import os
import time

os.write(1, b"first\n")
os.close(1)
time.sleep(600)
