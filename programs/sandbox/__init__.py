"""The sandbox: where code that a language model wrote is run."""
