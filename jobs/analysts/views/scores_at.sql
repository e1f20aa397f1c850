-- The rows of scores as they stood at a moment, also where they were replaced since.
-- Parameters: moment TIMESTAMP
SELECT
  key, score, as_of, as_of_date, arm, model_name, model_version, model_digest, events_version, dimension_versions,
  run_id, scored_at
FROM scores_history.{pipeline}
WHERE source = 'batch' AND stood_from <= moment AND (stood_until IS NULL OR stood_until > moment)
