-- The newest score of each key and arm, with its source: a run's ('batch') or one between two runs ('stream'). A key that
-- has left the population has its last one.
-- Column source: batch: a run; stream: scored between two runs
WITH ranked AS (
  SELECT
    *,
    ROW_NUMBER() OVER (
      PARTITION BY key, arm
      ORDER BY as_of DESC, events_version DESC, stood_from DESC, source, model_version DESC
    ) AS place
  FROM scores_history.{pipeline}
  WHERE stood_until IS NULL
)

SELECT
  key, score, as_of, as_of_date, arm, model_name, model_version, model_digest, events_version, dimension_versions,
  run_id, scored_at, source
FROM ranked
WHERE place = 1
