"""The server's page: static files, served as they are (``index.html`` at ``/``, the rest under ``/static/``).

They use the flame graph viewer of ``gprof_lite.formats.flamegraph``, whose scripts and style are served beside them.
Nothing is inlined and nothing comes from elsewhere, so the strictest content security policy holds.
"""
