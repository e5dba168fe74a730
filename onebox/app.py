"""One run of a onebox: its mongod and, while that starts, the services."""

from onebox.data_folder import SecretsError, load_or_create_secrets
from onebox.mongod import MongodError, launched_mongod
from onebox.run import Plan, Summary
from onebox.services import ServiceSettings
from onebox.settings import OneboxSettings
from runtime.process import CannotGoOnError, Shutdown
from runtime.start import BLOCKING_CLIENT, quick_imports
from simulator.errors import ReplayError, SimulatorError

# Errors that the user can fix: reported in one line, without a traceback.
EXPECTED = (MongodError, SecretsError, SimulatorError, CannotGoOnError, OSError)


class Onebox:
    """One run. Afterwards `summary` holds its result, or `error` the reason why it could not start."""

    def __init__(self, plan: Plan, settings: OneboxSettings, services: ServiceSettings) -> None:
        self._plan = plan
        self._settings = settings
        self._services = services
        self.summary: Summary | None = None
        self.error = ""
        self.error_code = 1
        self.failures: list[str] = []

    async def run(self, shutdown: Shutdown) -> None:
        """Run until the plan is done or a stop is requested; then drain and sum up."""
        try:
            secrets = load_or_create_secrets(self._plan.data)
            async with launched_mongod(self._plan.data / "mongodb") as launched:
                # mongod takes half a second to start, and importing the services takes longer: both at the same time.
                with quick_imports(*BLOCKING_CLIENT):
                    from onebox.pipeline import Pipeline  # noqa: PLC0415

                pipeline = Pipeline(self._plan, self._settings, self._services)
                self.summary, self.failures = await pipeline.run(await launched.ready(), secrets, shutdown)
        except EXPECTED as error:
            self._explain([error])
        except BaseExceptionGroup as group:
            expected, rest = group.split(EXPECTED)
            if rest is not None or expected is None:
                raise
            self._explain(_leaves(expected))

    def _explain(self, errors: list[BaseException]) -> None:
        self.error = "; ".join(map(str, errors))
        # A file that cannot be replayed is a wrong command line, not a failure.
        self.error_code = 2 if any(isinstance(error, ReplayError) for error in errors) else 1


def _leaves(group: BaseException) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [leaf for inner in group.exceptions for leaf in _leaves(inner)]
    return [group]
