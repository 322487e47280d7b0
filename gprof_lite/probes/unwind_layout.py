"""Bytes of the maps that programs unwind stacks by. Source: bpf/unwind.h and bpf/stack.h.

Sizes and numbers are compared with the headers by tests/unit/probes/test_unwind_layout.py.
"""

from __future__ import annotations

import struct
from typing import Final

SHARD_BYTES: Final = 1 << 20
SHARD_WORDS: Final = SHARD_BYTES // 4
MAX_MAPPINGS: Final = 512
"""Of one process."""
POOL_MAPPINGS: Final = 8192
"""Of all processes."""
MAX_PROCESSES: Final = 256
CACHED_RULES: Final = 4096

START: Final = struct.Struct("<Q")
MAPPING: Final = struct.Struct("<QQIIII")
PROCESS: Final = struct.Struct("<QII")
POOL_BYTES: Final = POOL_MAPPINGS * (START.size + MAPPING.size)
MAPPINGS_AT: Final = POOL_MAPPINGS * START.size
"""Where in the pool the mappings are, behind their starts."""

NO_SHARD: Final = 0xFFFFFFFF
ANONYMOUS: Final = 1
"""Flag of a mapping: code made at run time."""

# enum bpf_map_type and the flags of maps.
_HASH: Final = 1
_ARRAY: Final = 2
_PERCPU_ARRAY: Final = 6
_MMAPABLE: Final = 1 << 10

# Name of the map in the programs -> type, bytes of a key, bytes of a value, flags.
MAPS: Final = {
    "unwound": (_HASH, 4, PROCESS.size, 0),
    "mapping_pool": (_ARRAY, 4, POOL_BYTES, _MMAPABLE),
    "table_shards": (_ARRAY, 4, SHARD_BYTES, _MMAPABLE),
    "rule_cache": (_PERCPU_ARRAY, 4, CACHED_RULES * 8, 0),
}

# Tunable of the programs -> struct and member of the kernel: how to find what a return probe took from the stack.
# Source: struct uprobe_task and struct return_instance of the kernel's include/linux/uprobes.h.
MEMBERS: Final = {
    "task_utask_at": ("task_struct", "utask"),
    "utask_instances_at": ("uprobe_task", "return_instances"),
    "instance_stack_at": ("return_instance", "stack"),
    "instance_address_at": ("return_instance", "orig_ret_vaddr"),
    "instance_next_at": ("return_instance", "next"),
}
