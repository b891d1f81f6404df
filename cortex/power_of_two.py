"""Sizes of buckets."""


def power_of_two(least: int) -> int:
    """The smallest power of two that is not less; 1 for none."""
    return 1 << (least - 1).bit_length() if least > 1 else 1
