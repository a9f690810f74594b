"""A service of short links: the example of an async service that is handed its sessions.

Read `service.py` first (it knows the `AsyncSessionFactory` interface and nothing else), then
`app.py` (the only place that knows the registry). Any ASGI server runs it:

    DATABASE_URL=sqlite:///links.db uvicorn --factory examples.shortlinks.app:make_app
"""
