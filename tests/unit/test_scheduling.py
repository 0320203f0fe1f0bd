from collections import Counter
from pathlib import Path

from tests.support.scheduling import GROUPS

ROOT = Path(__file__).parents[2]


def test_every_file_that_is_scheduled_early_is_there_and_in_one_group():
    files = Counter(file for group in GROUPS for file in group)
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert max(files.values()) == 1
