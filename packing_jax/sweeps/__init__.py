"""Sweeps: what to run, cell by cell, and the store that keeps it whatever happens."""
