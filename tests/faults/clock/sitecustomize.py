"""Puts the wall clock of a process off by CLOCK_OFFSET seconds; Python imports this at the start where it finds it."""

import os
import time

_OFFSET = float(os.environ.get("CLOCK_OFFSET", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _OFFSET
time.time_ns = lambda: _time_ns() + int(_OFFSET * 1e9)
