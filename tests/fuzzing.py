"""Runs schemathesis against a service that serves its OpenAPI document."""

import asyncio
import os
import re
import sys
from pathlib import Path


async def fuzz(url: str, *options: str, checks: str, seed: int, folder: Path, **environment: str) -> tuple[int, str]:
    """Run it in a process and assert that it finds nothing; return the number of generated requests and the report."""
    command = ["-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", checks, "--seed", str(seed)]
    command += ["--generation-database", "none", "--no-color", "--request-timeout", "10", *options]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env=os.environ | {"PYTHONPATH": str(Path.cwd()), **environment},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    report = (await process.communicate())[0].decode()
    assert process.returncode == 0, f"seed {seed}: {report}"
    generated = re.search(r"(\d+) generated", report)
    assert generated, report
    return int(generated[1]), report
