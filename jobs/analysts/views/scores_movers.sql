-- Each key's score at two dates, and the change; NULL where the key has none at one of them: it entered, or left.
-- Parameters: date_before DATE, date_after DATE
WITH both_dates AS (
  SELECT
    key, arm, score AS score_before, model_version AS version_before, NULL AS score_after, NULL AS version_after
  FROM scores.{pipeline}
  WHERE as_of_date = date_before
  UNION ALL
  SELECT
    key, arm, NULL AS score_before, NULL AS version_before, score AS score_after, model_version AS version_after
  FROM scores.{pipeline}
  WHERE as_of_date = date_after
)

SELECT
  key,
  arm,
  MAX(score_before) AS score_before,
  MAX(score_after) AS score_after,
  MAX(score_after) - MAX(score_before) AS change,
  MAX(version_before) AS model_version_before,
  MAX(version_after) AS model_version_after
FROM both_dates
GROUP BY key, arm
