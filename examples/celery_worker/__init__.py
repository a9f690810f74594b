"""Orders that a worker confirms: Celery, factories injected, a task sent after the commit."""
