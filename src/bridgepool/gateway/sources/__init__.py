"""Where the providers of a gateway process come from: a file, a control plane, or a store."""
