"""Great Expectations suites of each pipeline, and the gate that runs them."""
