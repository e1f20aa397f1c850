-- How the scores of each date, arm and model are spread: how many, mean, extremes and quantiles, which are scores that are
-- there.
-- Column scores: how many
-- Column mean: their mean
-- Column least: the least
-- Column p10: a tenth are at most this
-- Column p25: a quarter are at most this
-- Column median: half are at most this
-- Column p75: three quarters are at most this
-- Column p90: nine tenths are at most this
-- Column p99: 99 % are at most this
-- Column greatest: the greatest
SELECT
  as_of_date,
  arm,
  model_name,
  model_version,
  COUNT(*) AS scores,
  AVG(score) AS mean,
  MIN(score) AS least,
  CAST(PERCENTILE_DISC(0.1) WITHIN GROUP (ORDER BY score) AS FLOAT) AS p10,
  CAST(PERCENTILE_DISC(0.25) WITHIN GROUP (ORDER BY score) AS FLOAT) AS p25,
  CAST(PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY score) AS FLOAT) AS median,
  CAST(PERCENTILE_DISC(0.75) WITHIN GROUP (ORDER BY score) AS FLOAT) AS p75,
  CAST(PERCENTILE_DISC(0.9) WITHIN GROUP (ORDER BY score) AS FLOAT) AS p90,
  CAST(PERCENTILE_DISC(0.99) WITHIN GROUP (ORDER BY score) AS FLOAT) AS p99,
  MAX(score) AS greatest
FROM scores.{pipeline}
GROUP BY as_of_date, arm, model_name, model_version
