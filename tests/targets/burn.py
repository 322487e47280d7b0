"""A labelled program to profile: three functions that burn 60, 30 and 10 percent of its CPU time.

Use: burn.py [seconds] [program to exec afterwards, with arguments]
"""

import os
import random
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
        n = random.randint(200, 2_000)  # short and of random length: see burn.c
        burn_sixty(6 * n)
        burn_thirty(3 * n)
        burn_ten(n)
    if arguments[1:]:
        os.execv(arguments[1], arguments[1:])


main(sys.argv[1:])
