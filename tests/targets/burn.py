"""A labelled program to profile: three functions that burn 60, 30 and 10 percent of its CPU time.

Use: burn.py [seconds] [program to exec afterwards, with arguments]
"""

import os
import sys
import time


def burn_sixty(n):
    total = 0
    for i in range(n):
        total += i
    return total


def burn_thirty(n):
    total = 0
    for i in range(n):
        total += i
    return total


def burn_ten(n):
    total = 0
    for i in range(n):
        total += i
    return total


def main(arguments):
    end_s = time.monotonic() + float(arguments[0]) if arguments else float("inf")
    while time.monotonic() < end_s:
        burn_sixty(60_000)
        burn_thirty(30_000)
        burn_ten(10_000)
    if arguments[1:]:
        os.execv(arguments[1], arguments[1:])


main(sys.argv[1:])
