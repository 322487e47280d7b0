"""The one symbolizer of an agent: addresses to frames."""
