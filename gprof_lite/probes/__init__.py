"""Our own BPF programs: loading them, attaching them, reading their maps."""
