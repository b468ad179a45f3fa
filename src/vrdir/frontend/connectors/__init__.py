"""Connectors: one module for each kind of recogniser, listed in `table`."""
