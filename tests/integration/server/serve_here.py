"""A server process for tests: ``serve_here.py DIRECTORY``. Prints its address when it is ready; SIGTERM ends it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from gprof_lite.config import Address
from gprof_lite.server.options import ServerOptions
from gprof_lite.server.service import serve
from gprof_lite.stop import StopToken

with StopToken() as stop:
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    options = ServerOptions(listen=Address("127.0.0.1", 0), server_data=Path(sys.argv[1]))
    serve(options, stop, on_ready=lambda address: print(address, flush=True))
