"""Frozen values that every other package speaks: frames, stacks, profiles, losses, coverage."""
