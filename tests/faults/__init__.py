"""Faults while load runs, and the accounts afterwards. `test_faults.py` has the short versions, `python -m faults` (in
tests/, or `make soak`) the long ones."""
