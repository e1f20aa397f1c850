"""Great Expectations suites of each pipeline, and the gate that runs them."""

import logging

# It logs 250 lines of INFO when imported, and its own account of each failure, which the errors here tell better.
logging.getLogger("great_expectations").setLevel(logging.ERROR)
