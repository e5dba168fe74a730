from simulator.waveform import SENSOR_TYPES, Waveform


def test_a_waveform_repeats_for_the_same_seed_and_differs_between_devices() -> None:
    def values(kind: str, seed: str) -> list[float]:
        waveform = Waveform(kind, seed)
        return [waveform.value(1_760_000_000_000 + 1000 * index) for index in range(200)]

    for kind in (*SENSOR_TYPES, "unknown"):
        assert values(kind, "a") == values(kind, "a") != values(kind, "b")
    assert all(10 < value < 32 for value in values("temperature", "a"))
