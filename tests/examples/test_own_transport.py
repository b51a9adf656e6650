from tests.examples.support import output_of


def test_the_transport_of_the_how_to_keeps_the_contract() -> None:
    assert output_of("own_transport.py") == "the transport fulfils its contract\n"
