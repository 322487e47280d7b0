"""Every read of /proc, /sys and cgroups; what runs on this host and who it is."""
