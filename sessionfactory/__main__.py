"""``python -m sessionfactory``: the command ``sessionfactory``."""

from sessionfactory.cli import main

main()
