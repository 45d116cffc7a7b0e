"""The scripts: each is a program as people write it, and knows nothing of this project."""
