"""What benchmarks of compiled functions share: contenders in processes of their own, turns, samples, reports.

What holds here: nothing knows what is measured. A contender is a process that answers requests (`serving.py`), is
stopped while it is not asked (`session.py`), and takes turns with the others (`turns.py`); what a run gives is saved
after each row (`results.py`), so that a run which was stopped goes on (`running.py`).
"""
