"""A referral programme in a hundred-odd rows: the example of a service that is handed its sessions.

Read `service.py` first (it knows the `SessionFactory` interface and nothing else), then `cli.py`
(the only place that knows the registry).
"""
