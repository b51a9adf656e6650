"""What every program of the `bridgepool` command needs: where it listens, how it logs."""
