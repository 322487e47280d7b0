"""requests without its guesser of character sets, which costs 3.7 MB of the agent's 64 and is never asked here.

It guesses only for ``Response.text`` of a body without a declared character set; we read bodies as bytes. requests
itself works without one and then takes UTF-8 (``requests.models.Response.apparent_encoding``), but warns at import.

    from gprof_lite.lean_requests import requests
"""

from __future__ import annotations

import sys
import warnings
from typing import Final

# Either of them is taken by requests where it can be imported.
_GUESSERS: Final = ("chardet", "charset_normalizer")

_hidden = [name for name in _GUESSERS if name not in sys.modules]
sys.modules.update(dict.fromkeys(_hidden))  # type: ignore[arg-type]  # None: importing it fails (sys.modules' rule)
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import requests
finally:
    for _name in _hidden:
        del sys.modules[_name]

__all__ = ["requests"]
