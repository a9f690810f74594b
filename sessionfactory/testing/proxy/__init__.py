"""A proxy before a real server that is slow or faulty on demand."""
