"""An agent reduced to its children: starts what it is told, says who they are, and eats memory when its input ends.

    agent.py leaf|walk COMMAND...

Each COMMAND is one argument, split at blanks; ``SELF`` in it is this program's pid. Says one JSON line:
``{"warden": pid, "children": [pid, ...]}``.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack

from gprof_lite.stop import StopToken
from gprof_lite.supervise.process import start_process_managed
from gprof_lite.supervise.warden_client import Warden


def main(mode: str, commands: list[str]) -> None:
    with ExitStack() as parts:
        stop = parts.enter_context(StopToken())
        warden = parts.enter_context(Warden(use_cgroup=mode == "leaf"))
        children = [
            parts.enter_context(
                start_process_managed(
                    tuple(command.replace("SELF", str(os.getpid())).split()), warden=warden, stop=stop
                )
            )
            for command in commands
        ]
        said = {"warden": warden.statistics().pid, "children": [child.pid for child in children]}
        print(json.dumps(said), flush=True)
        sys.stdin.read()
        eaten = []
        while True:
            eaten.append(b"\1" * 10_000_000)


main(sys.argv[1], sys.argv[2:])
