"""Old names of ``gprof_lite.host.maps``, which reads mappings for everybody; import from there."""

from __future__ import annotations

from gprof_lite.host.maps import Mapping as CodeMapping
from gprof_lite.host.maps import open_mapped_file
from gprof_lite.host.maps import parse_maps as parse_code_mappings

__all__ = ["CodeMapping", "open_mapped_file", "parse_code_mappings"]
