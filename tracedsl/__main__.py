"""`python -m tracedsl` is the `tracedsl` command."""

from tracedsl.cli import main

if __name__ == "__main__":
    main()
