-- Does the customer buy within the horizon after as_of? 1 yes, 0 no; known for certain only once
-- as_of + horizon_days has passed, which is why training asks for mature as_of dates alone.
SELECT
  s.key,
  s.as_of,
  CAST(COUNT(e.event_id) > 0 AS INT) AS label
FROM spine AS s
LEFT JOIN events AS e
  ON e.customer_id = s.key
  AND e.event_time >= s.as_of
  AND e.event_time < timestampadd(DAY, :horizon_days, s.as_of)
GROUP BY s.key, s.as_of
