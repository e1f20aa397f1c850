-- How a customer has bought so far, seen from as_of: recency, frequency, money, rhythm, and what changed lately.
-- Exact and without order: counts and money are BIGINT and DECIMAL until the last cast. A gap is the time between two
-- days with a purchase; purchases of one day have gaps of 0, which change no sum, so that it does not matter which of
-- them comes first. A customer without a visible purchase has zero counts and money, and NULL where there is nothing
-- to measure.
WITH seen AS (
  SELECT
    s.key,
    s.as_of,
    e.event_id,
    e.event_time,
    e.amount,
    e.cds,
    CAST(e.event_time AS DATE) AS day,
    CAST(
      DATEDIFF(e.event_time, LAG(e.event_time) OVER (PARTITION BY s.key, s.as_of ORDER BY e.event_time, e.event_id))
      AS BIGINT
    ) AS gap
  FROM spine AS s
  LEFT JOIN events AS e
    ON e.customer_id = s.key
    AND e.event_time < s.as_of
    AND e.arrived_at <= s.as_of
),

history AS (
  SELECT
    key,
    as_of,
    COUNT(event_id) AS purchases,
    MIN(event_time) AS first_time,
    MAX(event_time) AS last_time,
    COALESCE(SUM(amount), 0) AS spent,
    SUM(cds) AS items,
    COUNT_IF(gap > 0) AS gaps,
    SUM(gap) AS gap_sum,
    SUM(gap * gap) AS gap_squares,
    MAX_BY(gap, day) FILTER (WHERE gap > 0) AS gap_last,
    COUNT_IF(event_time >= as_of - INTERVAL '30' DAY) AS purchases_30d,
    COUNT_IF(event_time >= as_of - INTERVAL '90' DAY) AS purchases_90d,
    COUNT_IF(event_time >= as_of - INTERVAL '180' DAY) AS purchases_180d,
    COUNT_IF(event_time >= as_of - INTERVAL '365' DAY) AS purchases_365d,
    COALESCE(SUM(amount) FILTER (WHERE event_time >= as_of - INTERVAL '30' DAY), 0) AS spent_30d,
    COALESCE(SUM(amount) FILTER (WHERE event_time >= as_of - INTERVAL '90' DAY), 0) AS spent_90d,
    COALESCE(SUM(amount) FILTER (WHERE event_time >= as_of - INTERVAL '180' DAY), 0) AS spent_180d,
    COALESCE(SUM(amount) FILTER (WHERE event_time >= as_of - INTERVAL '365' DAY), 0) AS spent_365d
  FROM seen
  GROUP BY key, as_of
)

SELECT
  key,
  as_of,
  -- In days, with their fraction.
  (UNIX_MICROS(as_of) - UNIX_MICROS(last_time)) / 86400000000 AS recency_days,
  (UNIX_MICROS(as_of) - UNIX_MICROS(first_time)) / 86400000000 AS tenure_days,
  CAST(IF(purchases > 0, gaps + 1, 0) AS DOUBLE) AS purchase_days,
  CAST(spent AS DOUBLE) AS spent_total,
  -- A basket is one purchase.
  CAST(spent AS DOUBLE) / NULLIF(purchases, 0) AS basket_value_mean,
  items / NULLIF(purchases, 0) AS basket_items_mean,
  -- In days; undefined until there are enough of them.
  gap_sum / NULLIF(gaps, 0) AS gap_mean_days,
  CAST(gap_last AS DOUBLE) AS gap_last_days,
  CASE WHEN gaps >= 2 THEN SQRT(gaps * gap_squares - gap_sum * gap_sum) / gaps END AS gap_std_days,
  CAST(purchases_30d AS DOUBLE) AS purchases_30d,
  CAST(purchases_90d AS DOUBLE) AS purchases_90d,
  CAST(purchases_180d AS DOUBLE) AS purchases_180d,
  CAST(purchases_365d AS DOUBLE) AS purchases_365d,
  CAST(spent_30d AS DOUBLE) AS spent_30d,
  CAST(spent_90d AS DOUBLE) AS spent_90d,
  CAST(spent_180d AS DOUBLE) AS spent_180d,
  CAST(spent_365d AS DOUBLE) AS spent_365d,
  CAST(spent_90d AS DOUBLE) / NULLIF(CAST(spent AS DOUBLE), 0) AS share_spent_90d
FROM history
