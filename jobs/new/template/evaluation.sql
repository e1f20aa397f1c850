-- What the evaluation report compares with and slices by; it changes no score, and may be left out.
-- recency_days and frequency feed the two baselines; every other column is a slice.
SELECT
  key,
  as_of,
  recency_days,
  orders AS frequency,
  spent
FROM features
