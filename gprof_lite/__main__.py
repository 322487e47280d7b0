"""``python -m gprof_lite``: the same as the ``gprof-lite`` script."""

from gprof_lite.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
