"""What lies below the drivers: sockets, asyncio's transports, encryption."""
