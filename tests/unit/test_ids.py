from todo_api.core.ids import keyed_uuid, uuid7


def test_a_uuid7_has_the_version_variant_and_milliseconds_of_the_standard():
    made = uuid7(0x017F22E279B0 * 1_000_000)
    assert str(made).startswith("017f22e2-79b0-7")
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"


def test_later_ids_sort_after_earlier_ones_down_to_a_microsecond():
    start_ns = 1_700_000_000_000_000_000
    ids = [uuid7(start_ns + microsecond * 1_000) for microsecond in range(3_000)]
    assert ids == sorted(ids)
    assert [str(made) for made in ids] == sorted(str(made) for made in ids)


def test_ids_of_one_moment_differ():
    assert len({uuid7(1_700_000_000_000_000_000) for _ in range(10_000)}) == 10_000


def test_without_a_time_the_clock_is_read():
    assert uuid7() < uuid7(10_000_000_000 * 1_000_000_000)
    assert uuid7() > uuid7(1_700_000_000 * 1_000_000_000)


def test_the_id_of_a_key_is_the_same_for_ever_and_everybody_has_their_own() -> None:
    # Written down, so that a change of the recipe, which would make retried creates anew, is noticed.
    assert str(keyed_uuid("ann", "k")) == "1d2913a5-25e2-5cf8-b9fc-73cf00a3c519"
    assert keyed_uuid("ann", "k").version == 5
    assert (
        len({keyed_uuid("ann", "k"), keyed_uuid("ann", "K"), keyed_uuid("an", "nk"), keyed_uuid("bob", "k")})
        == 4
    )
