"""A Python program for bench/collapse.py. Usage: python busy.py SECONDS"""

import json
import re
import sys
import time


def price(n: int) -> float:
    return sum(i**0.5 for i in range(n))


def index(n: int) -> int:
    table = {f"item number {i}": i for i in range(n)}
    return len(json.loads(json.dumps(table))) + len(re.findall(r"number (\d+)", " ".join(sorted(table))))


end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    price(2000), index(500)
