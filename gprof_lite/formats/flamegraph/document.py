"""One profile as one HTML file that needs nothing else: opens from file://, offline, on any browser of this decade.

Everything is inlined. Its content security policy allows exactly the inlined script and style, by their SHA-256, and no
request of any kind, so even a frame name that managed to become markup could do nothing. Frame names reach the page
only as JSON in a data block (``<`` escaped, so no name can end the block) and from there only as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Final

from gprof_lite.formats.flamegraph.flamebearer import build_flamebearer
from gprof_lite.model.profile import Profile

# In the order in which a page must load them: each uses what the ones before it declare.
VIEWER_SCRIPTS: Final = (
    "wording.js",
    "flame_model.js",
    "flame_canvas.js",
    "flame_table.js",
    "overlays.js",
    "flame_keys.js",
    "viewer.js",
)
VIEWER_STYLE: Final = "viewer.css"
_STANDALONE_SCRIPTS: Final = (*VIEWER_SCRIPTS, "standalone.js")
_STANDALONE_STYLES: Final = (VIEWER_STYLE, "standalone.css")

# The viewer draws 100,000 nodes in one frame of the screen; twice that is about 6 MB of file.
MAX_NODES: Final = 200_000


def render_flamegraph(
    profile: Profile, *, title: str, facts: Sequence[tuple[str, str]] = (), max_nodes: int = MAX_NODES
) -> str:
    """The HTML of a profile's flame graph; write it as UTF-8.

    Args:
        profile: its sample type decides how weights are worded.
        title: heading and document title; any text.
        facts: (name, value) pairs shown below the heading, such as ("host", "web-1").
        max_nodes: smaller nodes beyond it are drawn as ``other``; the page says how many.
    """
    script = _joined(_STANDALONE_SCRIPTS)
    style = _joined(_STANDALONE_STYLES)
    data, n_pruned = _data_block(profile, max_nodes)
    if n_pruned:
        facts = (*facts, ("too small to draw", f"{n_pruned:,} frames, shown as “other”"))
    return Template(_asset("document.html")).substitute(
        title=_escaped(title),
        facts="".join(f"<div><dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd></div>" for name, value in facts),
        script_hash=_hash(script),
        style_hash=_hash(style),
        script=script,
        style=style,
        data=data,
    )


def _data_block(profile: Profile, max_nodes: int) -> tuple[str, int]:
    graph = build_flamebearer(profile.stacks, max_nodes=max_nodes)
    document = {
        "sampleType": profile.sample_type.value,
        "unit": profile.sample_type.unit,
        "names": graph.names,
        "levels": graph.levels,
    }
    # ensure_ascii also turns what is no valid text (lone surrogates) into escapes that JSON.parse takes.
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c"), graph.n_pruned


def _asset(name: str) -> str:
    return (files("gprof_lite.formats.flamegraph") / name).read_text(encoding="utf-8")


def _joined(names: Sequence[str]) -> str:
    # The browser hashes what stands between the tags; a line break at either end is part of it.
    return "\n" + "\n".join(_asset(name) for name in names)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _escaped(text: str) -> str:
    # NUL is no character of HTML, and lone surrogates none of UTF-8.
    return html.escape(text.replace("\0", "\ufffd").encode("utf-8", "replace").decode())
