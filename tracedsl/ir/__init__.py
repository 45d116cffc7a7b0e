"""The intermediate representations. `README.md` in this folder is their grammar on one page."""
