"""docs/operations.md on a onebox: operators' commands beside it, and a copy of its folder that is started."""

import re
import sys
import tempfile
from pathlib import Path

import aiohttp

from tests.e2e.onebox_process import ROOT, demo_credentials, running_onebox, signed_up
from tests.readme import shell

SECTION = (ROOT / "docs" / "operations.md").read_text().partition("\n### A onebox\n")[2].partition("\n## ")[0]


async def test_operators_commands_run_beside_it_and_a_copy_of_its_folder_starts() -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        async with running_onebox("--devices", "1", data=data) as (_, url):
            person = await signed_up(url, data)
            said = await shell(f"cd {name}\n{block.replace('.venv/bin/python', sys.executable)}", PYTHONPATH=str(ROOT))
            assert person["email"] in said
            assert "readings of 1 sealed collections were compacted" in said
        copy = Path(name) / "backup"
        assert "`cp -a data backup`" in SECTION
        await shell(f"cd {name}\ncp -a data backup")
        async with running_onebox("--devices", "0", data=copy) as (_, url), aiohttp.ClientSession() as http:
            assert demo_credentials(copy) == person
            async with http.post(f"{url}/user/login", json=person) as answer:
                token = (await answer.json())["accessToken"]
            async with http.get(f"{url}/series", headers={"Authorization": f"Bearer {token}"}) as answer:
                assert (await answer.json())["items"]
