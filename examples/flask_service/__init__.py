"""A guest book: Flask, factories from the application, gunicorn with `--preload`."""
