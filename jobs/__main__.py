"""`python -m jobs`, which is what Spark runs."""

from jobs.cli import main

if __name__ == "__main__":
    main()
