"""The embedded profile server: Pyroscope's ingest API in front of one SQLite file, and a page to look at it.

``service`` starts and stops it; ``app`` is its table of routes; ``push`` and ``ingest`` read what clients send;
``store`` keeps it; ``query`` answers from it.
"""
