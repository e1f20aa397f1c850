"""What jobs refuse, and why.

ScorelineError                 a job failed; running it again may help (exit code 1)
├── BackfillIncomplete         dates of a range were at fault, the others are scored (exit code 3 if for good)
├── ErasureUnfinished          an erased key is still there, or came back while it was erased
├── Fenced                     another attempt of the same task committed first
│   └── TakenOver              another attempt, or an erasure, removed what this one had staged
├── GenerationDiffers          what Redis holds is not what the table holds
├── Overtaken                  another generation went live meanwhile
├── RegistryUnavailable        MLflow does not answer
├── StreamDead                 a stream does not run, and was not started again
├── StreamEnded                a stream's query ended, or is about to
├── StreamRuns                 another stream of the pipeline runs
├── StreamStuck                a stream runs, is behind, and goes on no further
└── DataFault                  what was given is at fault: running it again cannot help (exit code 3)
    ├── ErasureKeyLost         keys were erased, and the secret is lost by which they are told
    ├── EntityKeyUnclear       a key is to be erased everywhere, and it is not said whose it is
    ├── UndeclaredData         a key is to be erased everywhere, and there are data of what nobody declares
    ├── SpecError              a pipeline's files are wrong: file, line, field and remedy
    ├── CheckFailed            a pipeline is not fit to run: `scoreline check` says why
    ├── SqlRefused             a SQL file is missing or does what its contract forbids
    ├── QueryRefused           an analyst's query cannot be run
    ├── FileFault              a landing file is missing, unreadable, of another shape, or delivered twice
    ├── FrameFault             a frame breaks a contract that no suite can waive (keys, spine, NaN)
    ├── NothingToPublish       there is no scores partition to publish
    ├── ReplayDiffers          a score is not what its recorded inputs give
    ├── RailsBreached          a generation is further from the live one than its pipeline allows
    ├── RollbackRefused        there is no whole generation to go back to
    ├── StreamFailed           a stream ended by what no restart mends
    ├── StreamChanged          a stream's checkpoint cannot follow what is declared now
    ├── CheckpointDamaged      a stream's record of its checkpoint, or of its place in a topic, cannot be read
    ├── MessagesLost           a topic has lost messages that were not read yet
    ├── ModelMissing           there is no such registered model, alias or version
    ├── ArtefactRefused        a model's artefact is not the one registered, or not one that we may read
    ├── ModelRefused           a trained model breaks what serving relies on
    └── TooLittleHistory       no training set can be cut from the history that there is
"""


class ScorelineError(Exception):
    """A job failed. Its message says what was wrong, where, and what to do."""

    exit_code = 1


class BackfillIncomplete(ScorelineError):
    """Dates of a range were at fault and were not scored; the others were."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ErasureUnfinished(ScorelineError):
    """An erased key is still there, or was brought back while it was erased: running it again goes on."""


class Fenced(ScorelineError):
    """Another attempt of the same task committed first, so that this one's write was dropped."""


class TakenOver(Fenced):
    """Another attempt removed this one's staged files, or an erasure did."""


class GenerationDiffers(ScorelineError):
    """What was read back from Redis is not what the scores table holds."""


class Overtaken(ScorelineError):
    """Another generation went live while this one was being written, so that this one did not."""


class RegistryUnavailable(ScorelineError):
    """MLflow does not answer, or not as the registry should."""


class StreamEnded(ScorelineError):
    """A stream's query ended, or is about to: what it had not done is done when it is started again."""


class StreamDead(ScorelineError):
    """A stream does not run, though nobody stopped it, and it was not started again."""


class StreamRuns(ScorelineError):
    """Another stream of the pipeline runs: there is one at a time."""


class StreamStuck(ScorelineError):
    """A stream runs, is behind, and has not gone on for longer than its pipeline allows."""


class DataFault(ScorelineError):
    """What was given (data, a file, SQL, an artefact) is at fault: running it again cannot help."""

    exit_code = 3


class ErasureKeyLost(DataFault):
    """Keys were erased, and the secret by which they are told when they come again is lost."""


class EntityKeyUnclear(DataFault):
    """A key is to be erased everywhere, and it is not said of which column it is a value."""


class UndeclaredData(DataFault):
    """A key is to be erased everywhere, and there are data of pipelines or sources that nobody declares any more."""


class SpecError(DataFault):
    """A pipeline's files are wrong. The message names the file, the line, the field and what to write instead."""


class CheckFailed(DataFault):
    """A pipeline is not fit to run; what was found is printed above."""


class SqlRefused(DataFault):
    """A SQL file is missing or does what its contract forbids."""


class QueryRefused(DataFault):
    """An analyst's query cannot be run; the message has the engine's reason."""


class FileFault(DataFault):
    """A landing file is missing, unreadable, of another shape than declared, or was delivered twice."""


class FrameFault(DataFault):
    """A frame breaks a contract that no suite can waive: unique keys, one row for each of the spine, finite scores."""


class NothingToPublish(DataFault):
    """There is no scores partition to publish."""


class RailsBreached(DataFault):
    """A generation is further from the live one than the rails of its pipeline allow; it did not go live."""


class ReplayDiffers(DataFault):
    """A score on record is not, bit for bit, what its recorded inputs give."""


class RollbackRefused(DataFault):
    """There is no whole generation to go back to; what was live stays live."""


class StreamFailed(DataFault):
    """A stream ended by a fault that no restart mends; it is in the stream's record."""


class StreamChanged(DataFault):
    """The checkpoint of a stream was made for other events than the pipeline declares now."""


class CheckpointDamaged(DataFault):
    """A stream's record of its checkpoint, or of its place in a topic, cannot be read."""


class MessagesLost(DataFault):
    """A topic has lost messages that were not read yet, or was made anew."""


class ModelMissing(DataFault):
    """There is no such registered model, alias or version."""


class ArtefactRefused(DataFault):
    """A model's artefact is not the one that was registered, or not one that may be read."""


class ModelRefused(DataFault):
    """A trained model breaks what serving relies on, so that it was not registered."""


class TooLittleHistory(DataFault):
    """No training set can be cut from the history that there is."""
