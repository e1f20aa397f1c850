-- Who has a score at as_of: every customer with a visible purchase in the two years before it.
-- A customer therefore enters on the day after the first purchase became visible, and leaves after two years without
-- one: beyond that the shop regards them as lost, and no campaign of it reads their score.
SELECT DISTINCT
  e.customer_id AS key,
  a.as_of
FROM as_ofs AS a
INNER JOIN events AS e
  ON e.event_time < a.as_of
  AND e.arrived_at <= a.as_of
  AND e.event_time >= a.as_of - INTERVAL '2' YEAR
