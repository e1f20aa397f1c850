-- What the model sees: CHANGE the features. One row for each row of `spine(key, as_of)`, from `events`.
-- Keep the two conditions of the join, or a feature knows what nobody knew at as_of. Sum in DECIMAL or BIGINT and cast
-- to DOUBLE last. `scoreline check $name` proves both.
SELECT
  s.key,
  s.as_of,
  CAST(COUNT_IF(e.amount > 0) AS DOUBLE) AS orders,
  CAST(COUNT_IF(e.amount > 0 AND e.event_time >= s.as_of - INTERVAL '30' DAY) AS DOUBLE) AS orders_30d,
  CAST(COUNT_IF(e.amount > 0 AND e.event_time >= s.as_of - INTERVAL '90' DAY) AS DOUBLE) AS orders_90d,
  -- Refunds have a negative amount, and so take back what was spent.
  CAST(COALESCE(SUM(e.amount), 0) AS DOUBLE) AS spent,
  CAST(COALESCE(SUM(e.amount) FILTER (WHERE e.event_time >= s.as_of - INTERVAL '30' DAY), 0) AS DOUBLE) AS spent_30d,
  CAST(COUNT_IF(e.amount < 0) AS DOUBLE) AS refunds,
  -- In days, with their fraction; NULL for who has none, which the model takes.
  (UNIX_MICROS(s.as_of) - UNIX_MICROS(MAX(e.event_time) FILTER (WHERE e.amount > 0))) / 86400000000 AS recency_days
FROM spine AS s
LEFT JOIN events AS e
  ON e.$entity_key = s.key
  AND e.event_time < s.as_of
  AND e.arrived_at <= s.as_of
GROUP BY s.key, s.as_of
