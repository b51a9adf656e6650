"""The sources of a gateway's providers: a file, a control plane, or a store."""
