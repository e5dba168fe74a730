"""`make power`: servers on a disk that forgets what was not synced; its power is cut, a sync fails, it is slow.

Exit code 1 if an acknowledged number was lost, stored twice or invented, or if a recovery needed a hand or too long.
With `--control` the disk ignores syncs, so that numbers must be lost, of the embedded queue or of each store that is
named: exit code 0 if the account sees that.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from runtime.command_line import whole_number
from runtime.logs import configure_logs
from testing.servers.namespaces import private_mounts
from testing.signals import exit_on_signals
from tests.power.disk import ForgetfulDisk
from tests.power.scenarios import Account, Proof, dying_disk, failed_sync, power_cuts, slow_disk
from tests.power.stores import STORES

CUTS, SHORT_CUTS = 50, 10
SLOW_SYNC_S, SLOW_FOR_S, SHORT_SLOW_FOR_S = 0.5, 60.0, 5.0
# From the end of a slow disk until acknowledgements are as quick as before; the short form runs beside other tests.
RECOVERS_WITHIN_S, SHORT_RECOVERS_WITHIN_S = 10.0, 60.0
# After a failed sync and a restart these do not outlive a power cut: docs/decisions/0030-power-cuts.md.
NO_CUT_AFTER_EIO = {"mariadb"}
Scenario = Callable[[Proof], None]


def shares(total: int) -> dict[str, int]:
    """Spread the cuts over the stores."""
    each, more = divmod(total, len(STORES))
    return {name: each + (at < more) for at, name in enumerate(STORES)}


def scenarios(args: argparse.Namespace) -> dict[str, tuple[str, Scenario]]:
    """Return all scenarios: the store and what is done to it."""
    found: dict[str, tuple[str, Scenario]] = {}
    for name, cuts in shares(args.cuts).items():
        if cuts:
            found[f"{name}-cuts"] = (name, partial(power_cuts, cuts=cuts))
        found[f"{name}-eio"] = (name, partial(failed_sync, then_cut=name not in NO_CUT_AFTER_EIO))
        found[f"{name}-dying"] = (name, dying_disk)
        times = (SHORT_SLOW_FOR_S, SHORT_RECOVERS_WITHIN_S) if args.short else (SLOW_FOR_S, RECOVERS_WITHIN_S)
        slow = partial(slow_disk, delay_s=SLOW_SYNC_S, seconds=times[0], recovers_within_s=times[1])
        found[f"{name}-slow"] = (name, slow)
    return found


def prove(name: str, store_name: str, scenario: Scenario, folder: Path, seed: int, *, control: bool = False) -> Account:
    """Run one scenario on a disk of its own."""
    with ForgetfulDisk(folder / name) as disk:
        store = STORES[store_name](disk.folder)
        proof = Proof(name, store, disk, random.Random(f"{seed}/{name}"), folder)
        try:
            store.create()
            disk.sync()
            if store.needs_data_before_rename:
                disk.keep_data_of_renamed()
            if control:
                disk.ignore_syncs()
            scenario(proof)
        except Exception as error:  # noqa: BLE001 - whatever a store says that does not start or cannot be read
            proof.account.failures.append(f"{type(error).__name__}: {error}")
        finally:
            proof.end()
    return proof.account


def row(account: Account) -> str:
    recovered = "" if account.recovered_s is None else f"{account.recovered_s:.1f} s"
    counts = (account.cuts, account.sent, account.acknowledged, account.lost, account.twice, account.foreign)
    return (
        f"{account.name:16}"
        + "".join(f"{count:>13}" for count in counts)
        + f"{account.slowest_start_s:>10.1f} s{recovered:>10}  {'; '.join(account.failures)}"
    )


def run(args: argparse.Namespace, folder: Path) -> int:
    names = ("cuts", "sent", "acknowledged", "lost", "twice", "foreign", "start", "recovery")
    print(f"{'':16}" + "".join(f"{name:>13}" for name in names[:6]) + f"{names[6]:>12}{names[7]:>10}", flush=True)
    if args.control:
        return control(args, folder)
    accounts = []
    for name, (store_name, scenario) in scenarios(args).items():
        if args.only and name not in args.only and store_name not in args.only:
            continue
        accounts.append(prove(name, store_name, scenario, folder, args.seed))
        print(row(accounts[-1]), flush=True)
    total = {name: sum(getattr(account, name) for account in accounts) for name in names[:6]}
    print(f"seed {args.seed}: " + ", ".join(f"{number} {name}" for name, number in total.items()))
    return 0 if accounts and all(account.holds for account in accounts) else 1


def control(args: argparse.Namespace, folder: Path) -> int:
    """Cut the power once on disks that ignore syncs; return 1 if a store has lost nothing then."""
    kept = []
    for name in args.only or ["embedded"]:
        account = prove(f"{name}-control", name, partial(power_cuts, cuts=1), folder, args.seed, control=True)
        print(row(account), flush=True)
        if not account.lost:
            kept.append(name)
    if kept:
        print(f"THE CONTROL LOST NOTHING of {', '.join(kept)}: this proves nothing")
    else:
        print("the control lost numbers, as it must")
    return 1 if kept else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make power", description=__doc__)
    parser.add_argument(
        "--cuts", type=whole_number(1), help=f"power cuts over all stores (default {CUTS}, short {SHORT_CUTS})"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments and of what a cut keeps (default 1)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these stores or scenarios, see --list")
    parser.add_argument(
        "--control", action="store_true", help="ignore syncs, so that numbers must be lost; with --only: these stores"
    )
    parser.add_argument("--short", action="store_true", help="as CI runs it: fewer cuts, slow for 5 s")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    args = parser.parse_args()
    args.cuts = args.cuts or (SHORT_CUTS if args.short else CUTS)
    known = scenarios(args)
    if args.control and (others := sorted(set(args.only or ()) - STORES.keys())):
        parser.error(f"--control takes stores ({', '.join(STORES)}), not {', '.join(others)}")
    if unknown := set(args.only or ()) - known.keys() - STORES.keys():
        cut = "; each store needs a cut of its own: more --cuts" if args.cuts < len(STORES) else ""
        parser.error(f"unknown: {', '.join(sorted(unknown))}; see --list{cut}")
    if args.list:
        print("\n".join(known))
        return 0
    if not Path("/dev/fuse").exists() or not private_mounts():
        print("FAILED: this needs root and /dev/fuse, to mount a disk of its own", file=sys.stderr)
        return 2
    configure_logs("critical", "console")
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="tidegate-power-") as folder:
        return run(args, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
