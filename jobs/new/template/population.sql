-- Who has a score at as_of: CHANGE the condition. Here whoever has ordered within a year.
-- Reads `events` and `as_ofs(as_of)`; gives key and as_of, each key once a date.
SELECT DISTINCT
  e.$entity_key AS key,
  a.as_of
FROM as_ofs AS a
INNER JOIN events AS e
  ON e.event_time < a.as_of
  AND e.arrived_at <= a.as_of
  AND e.event_time >= a.as_of - INTERVAL '365' DAY
