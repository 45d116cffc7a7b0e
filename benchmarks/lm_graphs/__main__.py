from benchmarks.lm_graphs.measure import main

main()
