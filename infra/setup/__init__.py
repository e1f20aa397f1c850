"""Set-up of one machine, with the standard library only: packages, jars, Java, Redis, configuration."""
