-- What the evaluation report compares with and slices by; it changes no score. Reads `features`.
-- recency_days and frequency feed the two baselines. Every other column is a slice: a string by its values, a number
-- by its terciles in the test period.
SELECT
  key,
  as_of,
  recency_days,
  purchase_days AS frequency,
  DATE_FORMAT(TIMESTAMPADD(SECOND, -CAST(tenure_days * 86400 AS BIGINT), as_of), 'yyyy-MM') AS first_purchase_month,
  spent_total
FROM features
