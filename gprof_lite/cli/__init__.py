"""The command line: arguments in, exit code out. The only place that prints and ends the process."""
