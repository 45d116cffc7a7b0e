"""`python -m benchmarks.programs`: see `runtime`."""

from benchmarks.programs.runtime import main

main()
