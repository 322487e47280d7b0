#!/usr/bin/python3 -IS
"""Runs, but never becomes ready and never says anything."""

import time

time.sleep(600)
