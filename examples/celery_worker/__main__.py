"""Make the tables, take some orders, and wait until the worker has confirmed them."""

from __future__ import annotations

import sys
import time
from typing import Final

from examples.celery_worker.app import make_program

ORDERS: Final = 20
PATIENCE: Final = 60.0


def main() -> int:
    """Run the program; return its exit status."""
    program = make_program()
    with program.registry:
        program.create_tables()
        before = program.orders.confirmed()
        for number in range(ORDERS):
            program.order(f"article {number}")
        end = time.monotonic() + PATIENCE
        while (done := program.orders.confirmed() - before) < ORDERS and time.monotonic() < end:
            time.sleep(0.1)
    print(f"{done} of {ORDERS} orders confirmed")
    return 0 if done == ORDERS else 1


if __name__ == "__main__":
    sys.exit(main())
