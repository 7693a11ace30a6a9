from __future__ import annotations

import numpy as np

from mobilesam_core.amg.regions import remove_small_regions


def test_pinholes_are_filled_and_specks_removed() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    whole = mask.copy()
    mask[5, 5] = False
    mask[15:17, 15:17] = True
    cleaned, changed = remove_small_regions(mask, 5)
    assert changed and np.array_equal(cleaned, whole)
    untouched, changed = remove_small_regions(whole, 5)
    assert not changed and np.array_equal(untouched, whole)


def test_the_largest_part_stays_however_small() -> None:
    mask = np.zeros((20, 20), bool)
    mask[1:3, 1:3] = mask[10, 10] = True
    cleaned, changed = remove_small_regions(mask, 50)
    assert changed and cleaned.sum() == 4 and cleaned[1, 1]
