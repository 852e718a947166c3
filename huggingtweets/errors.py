"""The exception family. Messages read `where: got X; expected Y; do Z`, shown as they are."""


def first_line(err: BaseException) -> str:
    """Return what an error of any library says, cut to fit into a sentence; else its class."""
    lines = str(err).strip().splitlines()
    return lines[0][:160] if lines else type(err).__name__


class HuggingtweetsError(Exception):
    """A failure whose single string argument is a sentence for the user.

    One argument only: errors cross process boundaries by pickling.
    """

    retryable = False
    """Whether running the same job again, unchanged, may succeed; `causes.py` sets it of an error
    whose cause may be gone by then, whatever its class."""
    cause: str | None = None
    """A `causes.Cause`, once it is told."""


class ConfigError(HuggingtweetsError):
    """The configuration asks for something that is not there or makes no sense."""


class SelectionError(ConfigError):
    """`user=`, `shard=` or `job_index=` name no valid job."""


class SourceError(HuggingtweetsError):
    """Posts cannot be read."""


class OptedOutError(SourceError):
    """A person is on the list of those who want no model."""


class TooFewPostsError(HuggingtweetsError):
    """A user has too little text to train on."""


class DataError(HuggingtweetsError):
    """Posts cannot be turned into blocks."""


class TrainingError(HuggingtweetsError):
    """The training of one job failed: it diverged."""


class OutOfMemoryError(TrainingError):
    """A device has no room for what is to be trained; another device may."""

    retryable = True


class CheckpointError(HuggingtweetsError):
    """A checkpoint is damaged or belongs to another job."""


class TrackingError(HuggingtweetsError):
    """A tracker cannot record."""

    retryable = True


class PublishError(HuggingtweetsError):
    """A finished model could not be published; it stays on disk."""

    retryable = True


class LaunchError(HuggingtweetsError):
    """The processes, devices or folders of a run are not as asked for."""


class JobBusyError(LaunchError):
    """Another living process is at work on the same job folder."""

    retryable = True


class StorageError(LaunchError):
    """A disk is full or does not let us write."""

    retryable = True


class StoppedError(HuggingtweetsError):
    """A stop was asked for and everything is saved; the same command goes on (exit code 75)."""

    retryable = True


class NoRoomError(StoppedError):
    """A batch has waited for room on its disk and ends for now (exit code 75)."""
