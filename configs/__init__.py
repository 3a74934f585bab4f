"""Settings of runs: base.py has every key, the others change some."""
