"""Runs the example: `python -m examples.referrals [sign-ups.csv]`."""

from __future__ import annotations

import sys

from examples.referrals.cli import main

if __name__ == "__main__":
    sys.exit(main())
