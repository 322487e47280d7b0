"""gprof-lite: where CPU time goes on a Linux host, and who leaks memory."""

__version__ = "0.1.0"
