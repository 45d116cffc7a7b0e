"""Benchmarks of the tuner: tables of measured schedules, and searches replayed on them."""
