-- All that was ever scored, each row with when it stood in its table: from stood_from until stood_until, NULL if it still
-- does. Source 'batch' is a run's, which a later run of the same date may replace; 'stream' was scored between two runs.
-- A date and arm has one set of rows after another. A set begins when it was written; where its rows do not say when
-- (they are from before that was kept), with the end of the set before, and the first one with its as_of.
-- Column source: batch: a run; stream: scored between two runs
-- Column stood_from: when the row began to stand in its table
-- Column stood_until: when another replaced it; NULL: it stands
WITH written AS (
  SELECT as_of_date, arm, NULL AS superseded_at, MAX(scored_at) AS scored_at, MIN(as_of) AS as_of
  FROM scores.{pipeline}
  GROUP BY as_of_date, arm
  UNION ALL
  SELECT as_of_date, arm, superseded_at, MAX(scored_at) AS scored_at, MIN(as_of) AS as_of
  FROM scores_superseded.{pipeline}
  GROUP BY as_of_date, arm, superseded_at
),

begun AS (
  SELECT
    as_of_date,
    arm,
    superseded_at,
    COALESCE(
      scored_at,
      LAG(superseded_at) OVER (PARTITION BY as_of_date, arm ORDER BY superseded_at NULLS LAST),
      as_of
    ) AS stood_from
  FROM written
),

stood AS (
  SELECT
    as_of_date,
    arm,
    superseded_at,
    stood_from,
    COALESCE(
      LEAD(stood_from) OVER (PARTITION BY as_of_date, arm ORDER BY superseded_at NULLS LAST),
      superseded_at
    ) AS stood_until
  FROM begun
),

kept AS (
  SELECT
    key, score, as_of, as_of_date, arm, model_name, model_version, model_digest, events_version, dimension_versions,
    run_id, scored_at, NULL AS superseded_at
  FROM scores.{pipeline}
  UNION ALL
  SELECT
    key, score, as_of, as_of_date, arm, model_name, model_version, model_digest, events_version, dimension_versions,
    run_id, scored_at, superseded_at
  FROM scores_superseded.{pipeline}
)

SELECT
  k.key, k.score, k.as_of, k.as_of_date, k.arm, k.model_name, k.model_version, k.model_digest, k.events_version,
  k.dimension_versions, k.run_id, k.scored_at, 'batch' AS source, s.stood_from, s.stood_until
FROM kept AS k
INNER JOIN stood AS s
  ON k.as_of_date = s.as_of_date
  AND k.arm = s.arm
  AND k.superseded_at IS NOT DISTINCT FROM s.superseded_at
-- A run that was killed between its two writes leaves a set that the next one keeps: the older of these two never stood.
WHERE s.stood_until IS NULL OR s.stood_from < s.stood_until
UNION ALL
SELECT
  key, score, as_of, as_of_date, arm, model_name, model_version, model_digest, events_version, dimension_versions,
  run_id, scored_at, 'stream' AS source, COALESCE(scored_at, as_of) AS stood_from, NULL AS stood_until
FROM scores_live.{pipeline}
