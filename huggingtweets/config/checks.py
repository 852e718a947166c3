"""What a value of a configuration may be; each check refuses it with what was expected."""

AUTO = "auto"


def check(is_valid: bool, key: str, value: object, expected: str) -> None:
    """Refuse a value that is not valid.

    Raises:
        ValueError: says what was expected.
    """
    if not is_valid:
        raise ValueError(f"{key}: got {value!r}; expected {expected}")


def check_least(group: str, config: object, **least: float) -> None:
    """Refuse values of these keys that are smaller; None may stand for a number."""
    for key, number in least.items():
        value = getattr(config, key)
        check(value is None or value >= number, f"{group}.{key}", value, f"{number} or more")


def check_positive(group: str, config: object, *keys: str) -> None:
    """Refuse values of these keys that are not above 0; None may stand for a number."""
    for key in keys:
        value = getattr(config, key)
        check(value is None or value > 0, f"{group}.{key}", value, "a number above 0")


def check_fracs(group: str, config: object, **below: float) -> None:
    """Refuse values of these keys that are no share below a number; null may stand for one."""
    for key, number in below.items():
        value = getattr(config, key)
        is_valid = value is None or 0 <= value < number
        check(is_valid, f"{group}.{key}", value, f"a number from 0 to below {number:g}")


def check_autos(group: str, config: object, **least: int) -> None:
    """Refuse values of these keys that are neither `auto` nor a whole number that large."""
    for key, number in least.items():
        value = getattr(config, key)
        is_valid = value == AUTO or (isinstance(value, int) and value >= number)
        check(is_valid, f"{group}.{key}", value, f"auto or a number of {number} or more")
