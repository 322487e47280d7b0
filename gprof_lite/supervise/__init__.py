"""Child processes: each has one owner, none outlives the agent, none is remembered after it has ended.

``docs/supervision.md`` tells how. The way in is ``warden_client.Warden`` and ``process.start_process_managed``.
"""
