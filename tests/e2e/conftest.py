from tests.simulated import north, south

__all__ = ["north", "south"]
