"""Teleprompters beside DSPy's: see `__main__`."""
