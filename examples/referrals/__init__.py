"""A referral programme: the example of a service that gets its sessions from outside.

Read `service.py` first (it knows the `SessionFactory` interface and nothing else), then
`__main__.py` (the only module that knows the registry).
"""
