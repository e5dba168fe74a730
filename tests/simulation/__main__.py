"""`make simulate`: runs seeds until the number is reached or one fails, whose history is printed."""

import argparse
import os
import sys
import time

from runtime.command_line import whole_number
from testing.signals import exit_on_signals
from tests.simulation.plants import PLANTS
from tests.simulation.seeds import Outcome, a_folder, run_seed, run_seeds

REPORT_EVERY = 1000


def main() -> int:
    """Return 1 if a seed failed; with a planted bug, if none did."""
    options = _options()
    exit_on_signals()
    if options.seeds == 1:
        with a_folder() as folder:
            outcome = run_seed(options.seed, folder / "run", plant=options.plant, keeps_history=True)
        _show(outcome, options.plant)
        return bool(outcome.faults) is not (options.plant is not None)
    began, first = time.monotonic(), options.seed
    number, steps, longest_s = 0, 0, 0.0
    for outcome in run_seeds(first, options.seeds, plant=options.plant, processes=options.processes):
        number, steps = number + 1, steps + outcome.steps
        longest_s = max(longest_s, outcome.drained_s)
        if outcome.faults:
            _show(outcome, options.plant)
            print(f"The {_nth(number)} seed of this run has failed.")
            return int(options.plant is None)
        if number % REPORT_EVERY == 0:
            print(f"{number} seeds, {number / (time.monotonic() - began):.0f} a second", flush=True)
    seconds = time.monotonic() - began
    print(
        f"{number} seeds from {first} on, nothing is wrong: {steps} steps in {seconds:.0f} s, "
        f"{number / seconds:.0f} seeds a second; everything was stored {longest_s:.1f} s after the last fault."
    )
    return int(options.plant is not None)


def _show(outcome: Outcome, plant: str | None) -> None:
    print("\n".join(outcome.history))
    for fault in outcome.faults:
        print(f"WRONG: {fault}")
    print(f"digest of this history: {outcome.digest}")
    planted = f" --plant {plant}" if plant else ""
    print(f"again: python -m tests.simulation --seeds 1 --seed {outcome.seed}{planted}", flush=True)


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--seeds", type=whole_number(1, 10**7), default=10_000, help="how many; 1 prints its history in any case"
    )
    parser.add_argument("--seed", type=whole_number(0), default=1, help="the first one (default: 1)")
    parser.add_argument("--plant", choices=PLANTS, help="plant a bug that has to be found")
    parser.add_argument(
        "--processes", type=whole_number(1), default=os.cpu_count() or 1, help="seeds at once (default: one a core)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Not through the interpreter's end, which would run the cleanup of all that was killed.
    os._exit(status)
