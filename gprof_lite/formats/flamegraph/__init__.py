"""The flame graph: one viewer, used by the self-contained file of ``record`` and by the server's page.

The viewer is plain JavaScript and CSS in this directory: no build step, nothing from others, nothing from a network.
``VIEWER_SCRIPTS`` are classic scripts in the order in which a page loads them; ``VIEWER_STYLE`` goes with them.
"""

from gprof_lite.formats.flamegraph.document import VIEWER_SCRIPTS, VIEWER_STYLE, render_flamegraph
from gprof_lite.formats.flamegraph.flamebearer import Flamebearer, build_flamebearer

__all__ = ["VIEWER_SCRIPTS", "VIEWER_STYLE", "Flamebearer", "build_flamebearer", "render_flamegraph"]
