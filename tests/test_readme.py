"""README says what is true."""

import re

from tests.settings_table import README, VARIABLES, variables, with_table


def test_the_settings_table_is_the_one_that_the_settings_make() -> None:
    text = README.read_text()
    assert text == with_table(text), "run: python -m tests.settings_table"


def test_every_process_knows_the_variables_of_the_others() -> None:
    assert VARIABLES.read_text() == variables(), "run: python -m tests.settings_table"


def test_the_device_examples_have_at_most_twenty_lines() -> None:
    examples = re.findall(r"```(python|javascript)\n(.*?)```", README.read_text(), re.DOTALL)
    assert [language for language, _ in examples] == ["python", "javascript"]
    for language, example in examples:
        assert len(example.splitlines()) <= 20, language
