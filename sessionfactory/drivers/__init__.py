"""What differs from driver to driver: error codes, time limits, TLS, cancelling, closing."""
