#!/usr/bin/python3 -IS
"""Exits with 0 and without a word."""
