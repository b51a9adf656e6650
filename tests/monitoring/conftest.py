from tests.simulated import north

__all__ = ["north"]
