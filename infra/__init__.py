"""What deploys Scoreline: set-up, the embedded runtime of one machine, configuration of the services."""
