#!/usr/bin/python3 -IS
"""Its last line has no end: is it 12 samples, or the beginning of 123?"""

import os

os.write(1, b"main;work 7\nmain;work;inner 12")
