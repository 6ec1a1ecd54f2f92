"""Every error microtune raises on purpose: what was wrong, where, and what would work."""


class MicrotuneError(Exception):
    """Root of all errors raised by microtune."""


class ModelError(MicrotuneError):
    """A model cannot be read or represented: unsupported operator, dynamic shape, unreadable file."""


class PlanError(MicrotuneError):
    """A training plan is contradictory: unknown scheme, loss or optimiser, or one that does not fit the model."""


class BudgetError(PlanError):
    """The plan needs more RAM or flash than its budget allows."""


class BuildError(MicrotuneError):
    """A package directory cannot be written or read."""


class ToolchainError(MicrotuneError):
    """The C compiler is missing or refused a source."""


class EmulationError(MicrotuneError):
    """An emulated core stopped where it should not have."""


class TrainingError(MicrotuneError):
    """A net cannot be trained on the desk: data that do not fit it, settings that cannot be, a loss not finite."""


class DeviceError(MicrotuneError):
    """The device refused a call; its state is unchanged. ``status`` is the C status name, such as MT_NO_PREDICTION."""

    def __init__(self, message: str, status: str = "") -> None:
        super().__init__(message)
        self.status = status
