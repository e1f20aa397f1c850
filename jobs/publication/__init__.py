"""From the scores table to what is live, and what operators do with it."""
