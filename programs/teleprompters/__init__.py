"""Teleprompters (optimizers): they compile a program, that is, find its demonstrations and instructions."""
