"""A bank whose server is killed while money moves: the example of `run_in_transaction`.

Read `service.py` first. `python -m examples.transfers` starts a throwaway PostgreSQL, has six
threads move money between accounts, kills the server again and again, and looks at the books.
"""
