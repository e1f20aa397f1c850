-- How a customer has bought so far, seen from as_of: recency, frequency, money, rhythm, and what changed lately.
-- Exact and without order: counts and money are BIGINT and DECIMAL until the last cast, and gaps come from the sorted
-- set of days with a purchase, which has no ties. A customer without a visible purchase has zero counts and money, and
-- NULL wherever there is nothing to measure.
WITH history AS (
  SELECT
    s.key,
    s.as_of,
    COUNT(e.event_id) AS purchases,
    MIN(e.event_time) AS first_time,
    MAX(e.event_time) AS last_time,
    COALESCE(SUM(e.amount), 0) AS spent,
    SUM(e.cds) AS items,
    ARRAY_SORT(COLLECT_SET(CAST(e.event_time AS DATE))) AS days,
    COUNT_IF(e.event_time >= s.as_of - INTERVAL '30' DAY) AS purchases_30d,
    COUNT_IF(e.event_time >= s.as_of - INTERVAL '90' DAY) AS purchases_90d,
    COUNT_IF(e.event_time >= s.as_of - INTERVAL '180' DAY) AS purchases_180d,
    COUNT_IF(e.event_time >= s.as_of - INTERVAL '365' DAY) AS purchases_365d,
    COALESCE(SUM(e.amount) FILTER (WHERE e.event_time >= s.as_of - INTERVAL '30' DAY), 0) AS spent_30d,
    COALESCE(SUM(e.amount) FILTER (WHERE e.event_time >= s.as_of - INTERVAL '90' DAY), 0) AS spent_90d,
    COALESCE(SUM(e.amount) FILTER (WHERE e.event_time >= s.as_of - INTERVAL '180' DAY), 0) AS spent_180d,
    COALESCE(SUM(e.amount) FILTER (WHERE e.event_time >= s.as_of - INTERVAL '365' DAY), 0) AS spent_365d
  FROM spine AS s
  LEFT JOIN events AS e
    ON e.customer_id = s.key
    AND e.event_time < s.as_of
    AND e.arrived_at <= s.as_of
  GROUP BY s.key, s.as_of
),

rhythm AS (
  SELECT
    *,
    CAST(SIZE(days) AS BIGINT) AS visits,
    TRANSFORM(
      SLICE(days, 2, GREATEST(SIZE(days) - 1, 0)),
      (day, i) -> CAST(DATEDIFF(day, days[i]) AS BIGINT)
    ) AS gaps
  FROM history
),

sums AS (
  SELECT
    *,
    visits - 1 AS n_gaps,
    AGGREGATE(gaps, 0L, (total, gap) -> total + gap) AS gap_sum,
    AGGREGATE(gaps, 0L, (total, gap) -> total + gap * gap) AS gap_squares
  FROM rhythm
)

SELECT
  key,
  as_of,
  -- Recency and tenure in days, with their fraction.
  (UNIX_MICROS(as_of) - UNIX_MICROS(last_time)) / 86400000000 AS recency_days,
  (UNIX_MICROS(as_of) - UNIX_MICROS(first_time)) / 86400000000 AS tenure_days,
  CAST(visits AS DOUBLE) AS purchase_days,
  CAST(spent AS DOUBLE) AS spent_total,
  -- A basket is one purchase.
  CAST(spent AS DOUBLE) / NULLIF(purchases, 0) AS basket_value_mean,
  items / NULLIF(purchases, 0) AS basket_items_mean,
  -- Gaps between days with a purchase, in days; undefined (NULL) until there are enough of them.
  gap_sum / NULLIF(n_gaps, 0) AS gap_mean_days,
  CAST(TRY_ELEMENT_AT(gaps, -1) AS DOUBLE) AS gap_last_days,
  CASE WHEN n_gaps >= 2 THEN SQRT(n_gaps * gap_squares - gap_sum * gap_sum) / n_gaps END AS gap_std_days,
  CAST(purchases_30d AS DOUBLE) AS purchases_30d,
  CAST(purchases_90d AS DOUBLE) AS purchases_90d,
  CAST(purchases_180d AS DOUBLE) AS purchases_180d,
  CAST(purchases_365d AS DOUBLE) AS purchases_365d,
  CAST(spent_30d AS DOUBLE) AS spent_30d,
  CAST(spent_90d AS DOUBLE) AS spent_90d,
  CAST(spent_180d AS DOUBLE) AS spent_180d,
  CAST(spent_365d AS DOUBLE) AS spent_365d,
  CAST(spent_90d AS DOUBLE) / NULLIF(CAST(spent AS DOUBLE), 0) AS share_spent_90d
FROM sums
