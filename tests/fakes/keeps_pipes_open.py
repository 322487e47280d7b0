#!/usr/bin/python3 -IS
"""Ends at once; its child lives on and holds standard output and standard error."""

import os
import time

if os.fork() == 0:
    time.sleep(600)
    os._exit(0)
print("parent ends", flush=True)
