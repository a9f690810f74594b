"""What the measurements use: databases, servers, packages, and work to do."""
