#!/usr/bin/python3 -IS
"""Has no execute permission."""
