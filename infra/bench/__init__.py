"""What `make bench` measures with and beside: found on PATH, or put under var/bench; nothing of it runs by itself."""
