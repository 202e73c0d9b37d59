"""The server's and the clients' processes on machines of their own."""
