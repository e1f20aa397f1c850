-- What the model learns to foresee: CHANGE the condition. 1 if the key orders within the horizon after as_of, else 0.
SELECT
  s.key,
  s.as_of,
  CAST(COUNT_IF(e.amount > 0) > 0 AS INT) AS label
FROM spine AS s
LEFT JOIN events AS e
  ON e.$entity_key = s.key
  AND e.event_time >= s.as_of
  AND e.event_time < timestampadd(DAY, :horizon_days, s.as_of)
GROUP BY s.key, s.as_of
