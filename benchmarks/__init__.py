"""What this package costs and gains, side by side with what a user would pick instead.

``python -m benchmarks`` measures every table; ``python -m benchmarks import_time --quick`` one of
them, with few rounds.
"""
