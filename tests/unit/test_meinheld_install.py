from importlib.metadata import version

import pytest

from scripts.meinheld.install import CORRECTIONS, VERSION, corrected


def test_the_meinheld_here_is_the_corrected_one():
    assert version("meinheld") == VERSION, "run scripts/meinheld/install.py"


def test_a_correction_is_made_everywhere_it_applies():
    correction = CORRECTIONS[0]
    assert correction.old not in corrected(f"a {correction.old} b {correction.old} c", correction)


def test_source_of_another_version_is_not_touched():
    with pytest.raises(ValueError, match="is not that of meinheld"):
        corrected("int main() {}", CORRECTIONS[1])
