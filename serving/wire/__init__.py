"""How Redis is reached, whatever stands behind its address: one server, sentinels, a cluster."""
