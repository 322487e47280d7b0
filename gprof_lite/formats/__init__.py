"""One module per text or binary format, all pure: bytes or lines in, values out, and back.

What is read here was written by somebody else and may be anything. A broken structure is a ``FormatError``; a broken
line or record is left out and counted. Nothing here opens a socket or starts a process.
"""
